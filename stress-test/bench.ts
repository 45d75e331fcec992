import { join } from "node:path";
import { listens, spawnServer, temporaryFolder } from "../tests/helpers/support.ts";
import { numberOf, onSignals, readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { progressBar } from "../tools/progress.ts";
import { generate } from "./data/payloads.ts";
import { holds, readPessoa } from "./data/reference-contract.ts";
import { evenly } from "./load/arrivals.ts";
import { closedLoop } from "./load/autocannon.ts";
import { generator } from "./load/generator.ts";
import type { Request } from "./load/http.ts";
import { create, locationOf, mix, persons, read, search, searchWithoutTerm } from "./load/requests.ts";
import { faultsOf, latenciesOf, type Result } from "./load/results.ts";
import { brief, isSame, parse, readBack, type Stored, settledCount, spread } from "./measure/audit.ts";
import { number, table } from "./measure/format.ts";
import { describeMachine, nameMachine } from "./measure/machine.ts";
import { type Latency, round, type Timed } from "./measure/statistics.ts";
import { type Metrics, readMetrics, type Sample, startSampling } from "./measure/usage.ts";
import type { Run } from "./report/charts.ts";
import { writeReport } from "./report/page.ts";

const scenarios = ["create", "get", "search", "mixed", "invalid"] as const;
type Scenario = (typeof scenarios)[number];

const seeded = 1000;
const sampled = 1000;
const maxHits = 50;
const giveUpAfter = 100; // requests without an answer

const usage = `Usage: bun run bench [OPTIONS]

Measures a people registry, checks every answer, and audits the stored persons: the count has to grow by exactly the
number of 201s, and each person with a 201 that is read back has to be as it was sent. Prints a table, and leaves
report.html with charts in a new folder. No other client may create persons meanwhile.

  --scenario NAME    create   valid persons
                     get      persons by id
                     search   terms like the contest's, and some that match
                     mixed    the contest's shares: 40 % creates, 40 % reads of the newest, 9 % searches, 11 % invalid
                     invalid  requests to be rejected: wrong types and values, taken apelidos, searches without t
                     all      one after the other (default)
  --url URL          the registry (default http://127.0.0.1:9999; if nothing listens there, bun run server.ts is started
                     on an empty embedded database, which is removed afterwards)
  --connections N    requests in flight, 1 to 1000 (default 32); closed loop only
  --rate N           open loop: N requests/s, 1 to 20000. Each is sent when it is due, without waiting for earlier
                     answers, and its latency counts from that time (default: closed loop, as fast as answers come)
  --duration S       measured seconds of each scenario, 0.1 to 3600 (default 10)
  --warmup S         seconds before them, checked but not measured, 0 to 600 (default 2)
  --timeout S        seconds until a request counts as failed, 1 to 60 (default 10)
  --project NAME     docker compose project of the registry: measures CPU and memory of its services
  --out DIR          folder for report.html, *.svg and result.json
                     (default stress-test/user-files/results/bench-<time>)
  --json             result.json on standard output instead of the table
  -h, --help         this text

Exit code: 0 all was as expected, 1 something failed, 2 could not be run.`;

type Options = {
  url: string;
  connections: number;
  /** Requests per second; undefined for a closed loop. */
  rate: number | undefined;
  timeoutS: number;
};

/** `countAfter`: null if the registry did not answer. */
type Audit = {
  countBefore: number;
  countAfter: number | null;
  created: number;
  readBack: number;
  wrong: number;
};

type Summary = {
  scenario: Scenario;
  passed: boolean;
  /** Why it failed, one sentence each. */
  problems: string[];
  /** Seconds from the first request to the last answer, without the warm-up. */
  seconds: number;
  requestsPerSecond: number;
  /** Milliseconds, by kind of request. */
  requests: Record<string, Latency>;
  /** Number of answers by status, with the warm-up. */
  statuses: Record<string, number>;
  audit: Audit;
};

/** Sends requests for `seconds`. Resolves when no answer is outstanding. */
async function send(options: Options, seconds: number, next: () => Request): Promise<Result[]> {
  const { url, connections, rate, timeoutS } = options;
  const common = { url, timeoutMs: timeoutS * 1000, giveUpAfter };
  if (rate === undefined) return await closedLoop({ ...common, connections, seconds }, next);
  // Not autocannon: its overallRate sends each connection's quota in a burst at the start of every second. Then its
  // correction for coordinated omission assumes 1 ms between requests at any rate (lib/run.js of 9.0.0), and so adds
  // samples that were not measured.
  const load = generator(common);
  const { answered, results } = load.open({ arrivals: evenly(rate, seconds), next });
  await answered;
  load.close();
  return results;
}

type World = {
  /** Persons with a 201 in this scenario, newest last. */
  stored: Stored[];
  next(scenario: Scenario): Request;
};

/** Makes requests with data like the contest's. Each apelido is new. */
function world(): World {
  const { rows, terms } = generate(1, 4000, 1000);
  const refused = rows.flatMap(({ payload }) => {
    const status = readPessoa(payload);
    return typeof status === "number" ? [{ payload, status }] : [];
  });
  const person = persons(1, 4000, `${crypto.randomUUID().slice(0, 13)}-`);
  const stored: Stored[] = [];
  let [unread, asked] = [0, 0];
  const pick = <T>(from: readonly T[], n: number) => from[n % from.length] as T;

  const makers: Record<Exclude<Scenario, "mixed">, () => Request> = {
    create() {
      const pessoa = person();
      return create(JSON.stringify(pessoa), [201], (answer) => {
        const location = locationOf(answer);
        stored.push({ ...pessoa, id: location.slice(location.lastIndexOf("/") + 1), location });
        return "";
      });
    },
    get: () => readOf(pick(stored, asked++)),
    search() {
      // Every fourth term is a piece of a name in another case, because the contest's terms match few persons.
      const piece = pick(stored, asked).nome.slice(0, 5).toUpperCase();
      const term = asked++ % 4 === 0 && piece.trim() !== "" ? piece : pick(terms, asked);
      return search(term, ({ body }) => {
        const hits = parse(body.toString());
        if (!Array.isArray(hits)) return `not a JSON array: ${brief(body.toString())}`;
        if (hits.length > maxHits) return `${hits.length} persons, at most ${maxHits} are allowed`;
        const stranger = (hits as Stored[]).find((hit) => !holds(hit, term));
        return stranger ? "a person does not hold the term" : "";
      });
    },
    invalid() {
      const turn = asked++ % 4;
      if (turn === 0) return { ...searchWithoutTerm(), kind: "invalid" };
      const { apelido, nome, nascimento } = pick(stored, asked);
      const taken = { payload: JSON.stringify({ apelido, nome, nascimento }), status: 422 };
      const { payload, status } = turn === 1 ? taken : pick(refused, asked);
      return { ...create(payload, [status]), kind: "invalid" };
    },
  };
  const readOf = (person: Stored): Request => ({
    ...read(person.location, ({ body }) =>
      isSame(parse(body.toString()), person) ? "" : "the person read differs from the person sent",
    ),
    kind: "get",
  });
  const kind = mix({ create: 40, get: 40, search: 9, invalid: 11 });

  return {
    stored,
    next(scenario) {
      if (scenario !== "mixed") return makers[scenario]();
      const next = kind();
      if (next !== "get") return makers[next]();
      unread = Math.min(Math.max(unread, seeded), stored.length - 1);
      return readOf(stored[unread++] as Stored);
    },
  };
}

type Watch = { samples: Sample[]; stop(): Promise<void> };

/** Samples CPU, memory and metrics of the compose project, or else of the process that answers at the URL. */
async function watch(options: Options, project: string | undefined): Promise<Watch> {
  const samples: Sample[] = [];
  if (project !== undefined) {
    const { stop } = await startSampling(project, 1000, (sample) => samples.push(sample));
    return { samples, stop };
  }
  const stopped = Promise.withResolvers<"stopped">();
  const asking = (async () => {
    do {
      const atMs = Date.now();
      const metrics = await readMetrics(options.url);
      if (metrics) samples.push({ atMs, services: serverUsage(metrics), metrics: { server: metrics } });
    } while ((await Promise.race([stopped.promise, Bun.sleep(1000)])) !== "stopped");
  })();
  return {
    samples,
    async stop() {
      stopped.resolve("stopped");
      await asking;
    },
  };
}

/** CPU and memory of the server's process, without the database. */
function serverUsage(metrics: Metrics): Sample["services"] {
  const bytes = metrics.process_resident_memory_bytes;
  const [userS, systemS] = [metrics.process_cpu_user_seconds_total, metrics.process_cpu_system_seconds_total];
  if (bytes === undefined || userS === undefined || systemS === undefined) return {};
  const memory = { memoryBytes: bytes, workingSetBytes: bytes, peakBytes: null, memoryLimitBytes: null };
  return { server: { userS, systemS, throttledS: 0, cpuLimit: null, ...memory } };
}

type Measured = { result: Summary; requests: Timed[]; samples: Sample[] };

/** Seeds, warms up, measures and audits one scenario. Throws if the registry does not answer before it. */
async function measure(
  options: Options,
  scenario: Scenario,
  { warmupS, durationS, project }: { warmupS: number; durationS: number; project: string | undefined },
): Promise<Measured> {
  const { stored, next } = world();
  const problems: string[] = [];
  const countBefore = await settledCount(options.url, 50);
  const bar = progressBar(warmupS + durationS, `${scenario.padEnd(7)} `);
  const sendFor = async (seconds: number, doneS: number, text: string) => {
    const startMs = performance.now();
    const updating = setInterval(() => {
      bar.update(doneS + Math.min(seconds, (performance.now() - startMs) / 1000), text);
    }, 100);
    const results = await send(options, seconds, () => next(scenario));
    clearInterval(updating);
    return results;
  };

  const before = scenario === "create" ? [] : await seed(options, () => next("create"));
  const warmUp = warmupS > 0 ? await sendFor(warmupS, 0, "warming up") : [];
  const watching = await watch(options, project);
  const results = await sendFor(durationS, warmupS, "measuring");
  await watching.stop();
  bar.stop();

  const all = [...warmUp, ...results];
  const faults = Object.entries(faultsOf(all)).sort(([, a], [, b]) => b - a);
  problems.push(...faults.map(([text, times]) => `${number(times)} × ${text}`));
  const answered = Map.groupBy(
    all.filter(({ status }) => status !== 0),
    ({ status }) => status,
  );
  const created = before.length + (answered.get(201)?.length ?? 0);
  // A create without an answer may have been stored or not.
  const unknown = all.filter(({ kind, status }) => kind === "create" && status === 0).length;
  const audit = await auditStored(options.url, { countBefore, created, unknown, stored }, problems);

  const startMs = results.reduce((min, { dueMs }) => Math.min(min, dueMs), Number.POSITIVE_INFINITY);
  const endMs = results.reduce((max, { dueMs, ms }) => Math.max(max, dueMs + ms), 0);
  const seconds = Math.max(0.001, (endMs - startMs) / 1000);
  const result: Summary = {
    scenario,
    passed: problems.length === 0,
    problems,
    seconds: round(seconds, 2),
    requestsPerSecond: round(results.length / seconds, 2),
    requests: Object.fromEntries(
      Object.entries(latenciesOf(results)).map(([kind, { p50, p95, p99, max, ...counts }]) => [
        kind,
        { ...counts, p50: round(p50, 2), p95: round(p95, 2), p99: round(p99, 2), max: round(max, 2) },
      ]),
    ),
    statuses: Object.fromEntries([...answered].map(([status, own]) => [status, own.length])),
    audit,
  };
  const requests = results.map(({ kind, dueMs, ms, fault }): Timed => {
    return { kind, startMs: performance.timeOrigin + dueMs, ms, failed: fault !== "" };
  });
  return { result, requests, samples: watching.samples };
}

/** Creates persons that requests can name. Throws unless each gets 201. */
async function seed({ url, timeoutS }: Options, next: () => Request): Promise<Result[]> {
  const load = generator({ url, timeoutMs: timeoutS * 1000, giveUpAfter: 1 });
  let left = seeded;
  const { answered, results } = load.closed({ users: 32, next: () => (left-- > 0 ? next() : undefined) });
  await answered;
  load.close();
  const wrong = results.find(({ fault }) => fault !== "");
  if (wrong) throw new Error(`a person to read could not be created: ${wrong.fault}`);
  return results;
}

async function auditStored(
  url: string,
  seen: { countBefore: number; created: number; unknown: number; stored: readonly Stored[] },
  problems: string[],
): Promise<Audit> {
  const { countBefore, created, unknown, stored } = seen;
  const audit: Audit = { countBefore, countAfter: null, created, readBack: 0, wrong: 0 };
  try {
    audit.countAfter = await settledCount(url, 100);
  } catch (error) {
    problems.push(`it could not be audited: ${error instanceof Error ? error.message : error}`);
    return audit;
  }
  const grew = audit.countAfter - countBefore;
  if (grew < created || grew > created + unknown) {
    const perhaps = unknown === 0 ? "" : `, and ${number(unknown)} more may have been stored`;
    problems.push(`the count grew by ${number(grew)}, but ${number(created)} creates got 201${perhaps}`);
  }
  const { persons, lost, changed, unreadable } = await readBack(url, spread(stored, sampled), problems);
  return { ...audit, readBack: persons, wrong: lost + changed + unreadable };
}

/** By how much the count grew, as text. */
function growth({ countBefore, countAfter }: Audit): string {
  return countAfter === null ? "unknown" : number(countAfter - countBefore);
}

/** This checkout's server on an empty embedded database. Rejects with its output if it does not start. */
async function startServer(): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = await temporaryFolder("bench");
  const { DATABASE_URL, SOCKET, HOST, ...env } = process.env as Record<string, string>;
  const server = await spawnServer({ ...env, PORT: "0", DATA_DIR: join(folder.path, "data") });
  const end = async () => {
    const said = await server.stop();
    await folder[Symbol.asyncDispose]();
    return said;
  };
  const { url } = server;
  if (url === undefined) throw new Error(`bun run server.ts does not start: ${await end()}`);
  // One stop for all callers: Ctrl-C and the run that it interrupts both wait for it.
  let stopping: Promise<unknown> | undefined;
  return {
    url,
    async stop() {
      stopping ??= end();
      await stopping;
    },
  };
}

/** The run as the report shows it. */
function describe({ result, requests, samples }: Measured, { rate, connections }: Options): Run {
  const { audit } = result;
  const failed = requests.filter((request) => request.failed).length;
  return {
    title: result.scenario,
    passed: result.passed,
    problems: result.problems,
    facts: [
      ["requests per second", number(Math.round(result.requestsPerSecond))],
      ["failed requests", `${number(failed)} of ${number(requests.length)}`],
      ["count grew by", `${growth(audit)} of ${number(audit.created)}`],
      ["read back", `${number(audit.readBack)}: ${audit.wrong} wrong`],
      rate === undefined
        ? ["closed loop", `${connections} connections`]
        : ["open loop", `${number(rate)} / s`],
      ["duration", `${result.seconds.toFixed(1)} s`],
    ],
    requests,
    seconds: result.seconds,
    samples,
  };
}

function render(results: readonly Summary[], title: string): string {
  const rows = results.flatMap(({ scenario, requests, requestsPerSecond, seconds }) => {
    const kinds = Object.entries(requests);
    return kinds.map(([kind, all]) => [
      kinds.length === 1 ? scenario : `${scenario}: ${kind}`,
      number(all.requests),
      number(Math.round(kinds.length === 1 ? requestsPerSecond : all.requests / seconds)),
      number(all.failed),
      ...[all.p50, all.p95, all.p99, all.max].map((ms) => ms.toFixed(2)),
    ]);
  });
  const lines = [
    title,
    "",
    ...table([["ms", "requests", "per s", "failed", "p50", "p95", "p99", "max"], ...rows]),
    "",
  ];
  for (const { scenario, audit, passed, problems } of results) {
    lines.push(
      `${scenario.padEnd(7)} ${passed ? "passed" : "FAILED"}: the count grew by ` +
        `${growth(audit)}, ${number(audit.created)} got 201; ` +
        `${number(audit.readBack)} read back, ${audit.wrong} wrong`,
      ...problems.slice(0, 5).map((problem) => `        ${problem}`),
    );
    if (problems.length > 5) lines.push(`        and ${problems.length - 5} other problems: see the JSON`);
  }
  return lines.join("\n");
}

async function main(): Promise<void> {
  const values = readArguments(usage, {
    scenario: { type: "string", default: "all" },
    url: { type: "string" },
    connections: { type: "string", default: "32" },
    rate: { type: "string" },
    duration: { type: "string", default: "10" },
    warmup: { type: "string", default: "2" },
    timeout: { type: "string", default: "10" },
    project: { type: "string" },
    out: { type: "string" },
    json: { type: "boolean", default: false },
  });
  const chosen = values.scenario === "all" ? scenarios : scenarios.filter((name) => name === values.scenario);
  if (chosen.length === 0) {
    throw new RangeError(`--scenario: expected ${scenarios.join(", ")} or all, got "${values.scenario}"`);
  }
  if (values.url !== undefined && !URL.canParse(values.url))
    throw new RangeError(`--url: expected a URL, got "${values.url}"`);
  const at = new Date().toISOString();
  const settings = {
    connections: wholeOf("connections", values.connections, 1, 1000),
    rate: values.rate === undefined ? undefined : numberOf("rate", values.rate, 1, 20_000),
    timeoutS: numberOf("timeout", values.timeout, 1, 60),
  };
  const times = {
    durationS: numberOf("duration", values.duration, 0.1, 3600),
    warmupS: numberOf("warmup", values.warmup, 0, 600),
    project: values.project,
  };
  const out =
    values.out ??
    join(import.meta.dir, "user-files", "results", `bench-${at.replaceAll(/\W/g, "").slice(0, 15)}`);

  const port = Number(process.env.PORT || 9999);
  const own = values.url === undefined && !(await listens(port)) ? await startServer() : undefined;
  const options: Options = { url: own?.url ?? values.url ?? `http://127.0.0.1:${port}`, ...settings };
  onSignals(async () => own?.stop());
  const measured: Measured[] = [];
  try {
    for (const scenario of chosen) measured.push(await measure(options, scenario, times));
  } finally {
    await own?.stop();
  }

  const results = measured.map(({ result }) => result);
  const machine = describeMachine();
  const server = own ? "bun run server.ts on its embedded database" : options.url;
  const mode =
    settings.rate === undefined
      ? `closed loop, ${settings.connections} connections`
      : `open loop, ${settings.rate}/s`;
  const report = await writeReport(out, {
    title: values.scenario === "all" ? "Benchmark" : `Benchmark: ${values.scenario}`,
    at,
    machine: nameMachine(machine),
    command: `bun run bench ${process.argv.slice(2).join(" ")}`.replace(/ --(json|out[ =]\S+)/g, "").trim(),
    runs: measured.map((each) => describe(each, options)),
  });
  const passed = results.every((result) => result.passed);
  const json = JSON.stringify({ passed, at, machine, server, mode, ...times, results, report }, null, 2);
  await Bun.write(join(out, "result.json"), `${json}\n`);
  console.log(values.json ? json : render(results, `${server}, ${mode}, ${times.durationS} s each`));
  console.error(`\nReport: ${report}`);
  if (!passed) process.exitCode = 1;
}

if (import.meta.main) await runScript(main);
