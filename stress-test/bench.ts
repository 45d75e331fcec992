import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import autocannon from "autocannon";
import { Presets, SingleBar } from "cli-progress";
import { numberOf, wholeOf } from "../tools/arguments.ts";
import { inParallel } from "../tools/parallel.ts";
import { holds, type Pessoa, readPessoa } from "./data/contract.ts";
import { generate } from "./data/payloads.ts";
import { brief, isSame, parse, readBack, type Stored, settledCount, spread } from "./measure/audit.ts";
import { number, table } from "./measure/format.ts";
import { describeMachine, nameMachine } from "./measure/machine.ts";
import { type Latency, summarise, type Timed } from "./measure/statistics.ts";
import { type Metrics, readMetrics, readSamples, type Sample } from "./measure/usage.ts";
import type { Run } from "./report/charts.ts";
import { writeReport } from "./report/page.ts";

const scenarios = ["create", "get", "search", "mixed", "invalid"] as const;
type Scenario = (typeof scenarios)[number];

const seeded = 1000;
const sampled = 1000;
const maxHits = 50;
const givenUpAfter = 100;

const usage = `Usage: bun run bench [OPTIONS]

Measures a people registry, checks every answer, and audits what it has stored: the count has to grow by exactly
the 201s that were seen, and persons that got one have to be read back as they were sent. Prints a table; leaves
report.html with pictures in a folder of its own. Nobody else may create persons meanwhile.

  --scenario NAME    create   valid persons
                     get      persons by id
                     search   terms of the contest's kind, and some that find persons
                     mixed    the contest's shares: 40 % creates, 40 % reads of the newest, 9 % searches, 11 % invalid
                     invalid  what has to be refused: wrong types and values, taken apelidos, searches without t
                     all      one after the other (default)
  --url URL          the registry (default http://127.0.0.1:9999; where nothing listens there, bun run server.ts is
                     started on an empty embedded database, and removed afterwards)
  --connections N    requests in flight, 1 to 1000 (default 32); closed loop only
  --rate N           open loop: N requests/s, 1 to 20000, sent when they are due, whether the earlier ones are answered
                     or not. Latency counts from when a request was due (default: closed loop, as fast as answers come)
  --duration S       seconds measured of each scenario, 0.1 to 3600 (default 10)
  --warmup S         seconds before that which are checked but not measured, 0 to 600 (default 2)
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

/** One request, and what its answer has to be. */
type Task = {
  kind: string;
  method: "GET" | "POST";
  path: string;
  body?: string;
  /** What is wrong with the answer, "" when nothing is. */
  check(status: number, body: string, location: string | undefined): string;
};

/** Null where the registry could not be asked any more. */
type Audit = {
  countBefore: number;
  countAfter: number | null;
  created: number;
  readBack: number;
  wrong: number;
};

type Result = {
  scenario: Scenario;
  passed: boolean;
  /** Why it failed, one sentence each. */
  problems: string[];
  /** Seconds from the first request to the last answer, without the warm-up. */
  seconds: number;
  requestsPerSecond: number;
  /** Milliseconds, by kind of request. */
  requests: Record<string, Latency>;
  /** Answers by status, of the warm-up too. */
  statuses: Record<string, number>;
  audit: Audit;
};

/** What happened while requests were sent. */
type Seen = {
  requests: Timed[];
  statuses: Map<number, number>;
  faults: Map<string, number>;
  /** POSTs without an answer: nobody knows whether these persons are stored. */
  unknown: number;
};

/**
 * Sends tasks for `seconds`, then waits for all answers that are still to come: a loop that stops listening while
 * requests are in flight would see fewer 201s than there are persons.
 */
async function send(
  options: Options,
  seconds: number,
  next: () => Task,
  progress: () => void,
): Promise<Seen> {
  const seen: Seen = { requests: [], statuses: new Map(), faults: new Map(), unknown: 0 };
  const fault = (text: string) => seen.faults.set(text, (seen.faults.get(text) ?? 0) + 1);
  const answered = (task: Task, startMs: number, status: number, body: string, location?: string) => {
    const wrong = task.check(status, body, location);
    if (wrong !== "") fault(`${task.kind}: ${wrong}`);
    seen.statuses.set(status, (seen.statuses.get(status) ?? 0) + 1);
    timed(task, startMs, wrong !== "");
  };
  const unanswered = (task: Task, startMs: number, reason: string) => {
    fault(`${task.kind}: ${reason}`);
    if (task.method === "POST") seen.unknown++;
    timed(task, startMs, true);
  };
  const timed = ({ kind }: Task, startMs: number, failed: boolean) => {
    const ms = performance.now() - startMs;
    seen.requests.push({ kind, startMs: performance.timeOrigin + startMs, ms, failed });
    progress();
  };
  if (options.rate === undefined) await closedLoop(options, seconds, next, answered, unanswered);
  else await openLoop(options, options.rate, seconds, next, answered, unanswered);
  return seen;
}

type Answered = (task: Task, startMs: number, status: number, body: string, location?: string) => void;
type Unanswered = (task: Task, startMs: number, reason: string) => void;

/** Every connection sends its next request when the one before is answered. */
async function closedLoop(
  { url, connections, timeoutS }: Options,
  seconds: number,
  next: () => Task,
  answered: Answered,
  unanswered: Unanswered,
): Promise<void> {
  type Sent = { task: Task; startMs: number };
  const inFlight = new Set<Sent>();
  const clients: autocannon.Client[] = [];
  const running = autocannon({
    url,
    connections,
    timeout: timeoutS,
    duration: seconds + timeoutS + 1, // in vain: each connection ends below, when it has its last answer
    bailout: givenUpAfter,
    sampleInt: 100,
    setupClient: (client) => void clients.push(client),
    requests: [
      {
        setupRequest(request, context: { sent?: Sent }) {
          const task = next();
          context.sent = { task, startMs: performance.now() };
          inFlight.add(context.sent);
          const headers = task.body === undefined ? {} : { "Content-Type": "application/json" };
          return { ...request, method: task.method, path: task.path, body: task.body ?? "", headers };
        },
        onResponse(status, body, context: { sent?: Sent }, headers = {}) {
          const { sent } = context;
          if (!sent || !inFlight.delete(sent)) return;
          const location = Object.entries(headers).find(([name]) => name.toLowerCase() === "location")?.[1];
          answered(
            sent.task,
            sent.startMs,
            status,
            body,
            typeof location === "string" ? location : undefined,
          );
        },
      },
    ],
  });
  const timer = setTimeout(() => {
    // What autocannon calls amount, per connection: it has sent that many, so it ends with the next answer. When the
    // duration is over it would hang up with a request in flight.
    for (const client of clients) (client as unknown as { responseMax: number }).responseMax = 1;
  }, seconds * 1000);
  const { timeouts } = await running;
  clearTimeout(timer);
  // Also those whose connection ended or was reset: autocannon sends the next request and forgets this one.
  for (const { task, startMs } of inFlight) {
    unanswered(task, startMs, timeouts > 0 ? `no answer within ${timeoutS} s` : "the connection was closed");
  }
}

/**
 * Sends at a fixed rate. Not by autocannon: its overallRate gives each connection a quota that it sends as fast as
 * answers come at the start of every second, and its correction for coordinated omission then assumes 1 ms between
 * requests at any rate (lib/run.js of 9.0.0: Math.ceil(1 / rate), in ms), which makes up samples that never were.
 */
async function openLoop(
  { url, timeoutS }: Options,
  rate: number,
  seconds: number,
  next: () => Task,
  answered: Answered,
  unanswered: Unanswered,
): Promise<void> {
  const total = Math.max(1, Math.round(rate * seconds));
  const pending = new Set<Promise<void>>();
  const startMs = performance.now();
  let failures = 0;
  for (let sent = 0; sent < total && failures < givenUpAfter; await Bun.sleep(1)) {
    const due = Math.min(total, Math.floor(((performance.now() - startMs) / 1000) * rate) + 1);
    for (; sent < due; sent++) {
      const request = one(next(), startMs + (sent / rate) * 1000);
      pending.add(request);
      void request.then(() => pending.delete(request));
    }
  }
  await Promise.all(pending);

  async function one(task: Task, dueMs: number): Promise<void> {
    const { method, path, body } = task;
    try {
      const response = await fetch(new URL(path, url), {
        method,
        redirect: "manual",
        signal: AbortSignal.timeout(timeoutS * 1000),
        ...(body === undefined ? {} : { body, headers: { "Content-Type": "application/json" } }),
      });
      const text = await response.text();
      answered(task, dueMs, response.status, text, response.headers.get("location") ?? undefined);
    } catch (error) {
      failures++;
      unanswered(task, dueMs, error instanceof Error ? error.message : String(error));
    }
  }
}

type World = {
  /** Everyone that got 201 in this scenario, newest last. */
  stored: Stored[];
  next(scenario: Scenario | "seed"): Task;
};

/** Makes tasks with the contest's kind of data and persons that nobody has made before. */
function world(): World {
  const { rows, terms } = generate(1, 4000, 1000);
  const read = rows.map(({ payload }) => ({ payload, pessoa: readPessoa(payload) }));
  const valid = read.flatMap(({ pessoa }) => (typeof pessoa === "object" ? [pessoa] : []));
  const refused = read.flatMap(({ payload, pessoa }) =>
    typeof pessoa === "number" ? [{ payload, status: pessoa }] : [],
  );
  const prefix = crypto.randomUUID().slice(0, 13);
  const stored: Stored[] = [];
  let [made, unread, asked] = [0, 0, 0];

  const statusIs = (expected: number) => (status: number, body: string) =>
    status === expected ? "" : `expected ${expected}, got ${status} ${brief(body)}`;
  const pick = <T>(from: readonly T[], n: number) => from[n % from.length] as T;

  const makers: Record<Exclude<Scenario, "mixed">, () => Task> = {
    create() {
      const pessoa: Pessoa = { ...pick(valid, made), apelido: `${prefix}-${made++}` };
      return {
        kind: "create",
        method: "POST",
        path: "/pessoas",
        body: JSON.stringify(pessoa),
        check(status, body, location) {
          if (status !== 201) return statusIs(201)(status, body);
          const id = location?.split("/").at(-1);
          if (!location || !id) return "201 without a Location";
          stored.push({ ...pessoa, id, location });
          return "";
        },
      };
    },
    get: () => readOf(pick(stored, asked++)),
    search() {
      // Every fourth is a piece of somebody's name, in another case, so that the empty ones do not set the tone.
      const piece = pick(stored, asked).nome.slice(0, 5).toUpperCase();
      const term = asked++ % 4 === 0 && piece.trim() !== "" ? piece : pick(terms, asked);
      return {
        kind: "search",
        method: "GET",
        path: `/pessoas?t=${encodeURIComponent(term)}`,
        check(status, body) {
          if (status !== 200) return statusIs(200)(status, body);
          const hits = parse(body);
          if (!Array.isArray(hits)) return `not a JSON array: ${brief(body)}`;
          if (hits.length > maxHits) return `${hits.length} persons, at most ${maxHits} are allowed`;
          const stranger = (hits as Stored[]).find((hit) => !holds(hit, term));
          return stranger ? "a person does not hold the term" : "";
        },
      };
    },
    invalid() {
      const turn = asked++ % 4;
      const path = "/pessoas";
      if (turn === 0) return { kind: "invalid", method: "GET", path, check: statusIs(400) };
      if (turn === 1) {
        const { apelido, nome, nascimento } = pick(stored, asked);
        const body = JSON.stringify({ apelido, nome, nascimento });
        return { kind: "invalid", method: "POST", path, body, check: statusIs(422) };
      }
      const { payload, status } = pick(refused, asked);
      return { kind: "invalid", method: "POST", path, body: payload, check: statusIs(status) };
    },
  };
  const readOf = (person: Stored): Task => ({
    kind: "get",
    method: "GET",
    path: person.location,
    check(status, body) {
      if (status !== 200) return statusIs(200)(status, body);
      return isSame(parse(body), person) ? "" : "the person read differs from the person sent";
    },
  });
  // The shares of the contest's requests, spread over a hundred.
  const mix = Array.from({ length: 100 }, (_, index): Exclude<Scenario, "mixed"> => {
    const place = (index * 37) % 100;
    if (place < 40) return "create";
    return place < 80 ? "get" : place < 89 ? "search" : "invalid";
  });
  let mixed = 0;

  return {
    stored,
    next(scenario) {
      if (scenario === "seed") return makers.create();
      if (scenario !== "mixed") return makers[scenario]();
      const kind = pick(mix, mixed++);
      if (kind !== "get") return makers[kind]();
      unread = Math.min(Math.max(unread, seeded), stored.length - 1);
      return readOf(stored[unread++] as Stored);
    },
  };
}

type Watch = { samples: Sample[]; stop(): Promise<void> };

/** Samples CPU, memory and metrics: of the compose project, else of the process that answers at the URL. */
async function watch(options: Options, project: string | undefined): Promise<Watch> {
  const samples: Sample[] = [];
  if (project !== undefined) {
    const folder = await mkdtemp(join(tmpdir(), "pessoas-bench-"));
    const file = join(folder, "usage.jsonl");
    const command = [
      process.execPath,
      "run",
      join(import.meta.dir, "measure/usage.ts"),
      "--project",
      project,
      "--out",
      file,
    ];
    const sampler = Bun.spawn(command, { stdout: "ignore", stderr: "pipe" });
    while (!(await Bun.file(file).exists())) {
      if (sampler.exitCode !== null) throw new Error((await sampler.stderr.text()).trim());
      await Bun.sleep(50);
    }
    return {
      samples,
      async stop() {
        sampler.kill("SIGTERM");
        await sampler.exited;
        samples.push(...readSamples(await Bun.file(file).text()));
        await rm(folder, { recursive: true });
      },
    };
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

/** What the server's process says of itself; of the database it does not know. */
function serverUsage(metrics: Metrics): Sample["services"] {
  const bytes = metrics.process_resident_memory_bytes;
  const [userS, systemS] = [metrics.process_cpu_user_seconds_total, metrics.process_cpu_system_seconds_total];
  if (bytes === undefined || userS === undefined || systemS === undefined) return {};
  const memory = { memoryBytes: bytes, workingSetBytes: bytes, peakBytes: null, memoryLimitBytes: null };
  return { server: { userS, systemS, throttledS: 0, cpuLimit: null, ...memory } };
}

type Measured = { result: Result; requests: Timed[]; samples: Sample[] };

/** Seeds, warms up, measures and audits one scenario. Throws when the registry cannot be asked at all. */
async function measure(
  options: Options,
  scenario: Scenario,
  { warmupS, durationS, project }: { warmupS: number; durationS: number; project: string | undefined },
): Promise<Measured> {
  const { stored, next } = world();
  const problems: string[] = [];
  const countBefore = await settledCount(options.url, 50);
  const faults = new Map<string, number>();
  const statuses = new Map<number, number>();
  let unknown = 0;
  const keep = (seen: Seen) => {
    unknown += seen.unknown;
    for (const [text, times] of seen.faults) faults.set(text, (faults.get(text) ?? 0) + times);
    for (const [status, times] of seen.statuses) statuses.set(status, (statuses.get(status) ?? 0) + times);
  };

  const steps = (scenario === "create" ? 0 : 1) + warmupS + durationS;
  const bar = new SingleBar(
    {
      stream: process.stderr,
      hideCursor: true,
      format: `${scenario.padEnd(7)} {bar} {percentage} %  {step}`,
    },
    Presets.shades_classic,
  );
  if (process.stderr.isTTY) bar.start(steps, 0, { step: "" });
  const from = (done: number, atMost: number, step: string) => {
    const startMs = performance.now();
    return () => bar.update(done + Math.min(atMost, (performance.now() - startMs) / 1000), { step });
  };

  if (scenario !== "create") {
    const tasks = Array.from({ length: seeded }, () => next("seed"));
    const missing = await seed(options, tasks);
    if (missing !== "") throw new Error(`persons to ask for could not be created: ${missing}`);
  }
  const ready = steps - warmupS - durationS;
  if (warmupS > 0)
    keep(await send(options, warmupS, () => next(scenario), from(ready, warmupS, "warming up")));
  const watching = await watch(options, project);
  const seen = await send(
    options,
    durationS,
    () => next(scenario),
    from(ready + warmupS, durationS, "measuring"),
  );
  await watching.stop();
  keep(seen);
  bar.update(steps, { step: "auditing" });
  bar.stop();

  const counted = [...faults].sort(([, a], [, b]) => b - a);
  problems.push(...counted.map(([text, times]) => `${number(times)} × ${text}`));
  const created = (scenario === "create" ? 0 : seeded) + (statuses.get(201) ?? 0);
  const audit = await auditStored(options.url, { countBefore, created, unknown, stored }, problems);

  const kinds = Map.groupBy(seen.requests, ({ kind }) => kind);
  const startMs = seen.requests.reduce(
    (min, request) => Math.min(min, request.startMs),
    Number.POSITIVE_INFINITY,
  );
  const endMs = seen.requests.reduce((max, request) => Math.max(max, request.startMs + request.ms), 0);
  const seconds = Math.max(0.001, (endMs - startMs) / 1000);
  const result: Result = {
    scenario,
    passed: problems.length === 0,
    problems,
    seconds: rounded(seconds),
    requestsPerSecond: rounded(seen.requests.length / seconds),
    requests: Object.fromEntries([...kinds].sort().map(([kind, own]) => [kind, latency(own)])),
    statuses: Object.fromEntries([...statuses].sort()),
    audit,
  };
  return { result, requests: seen.requests, samples: watching.samples };
}

function latency(own: readonly Timed[]): Latency {
  const all = summarise(
    own.map(({ ms }) => ms),
    own.filter(({ failed }) => failed).length,
  );
  return {
    ...all,
    p50: rounded(all.p50),
    p95: rounded(all.p95),
    p99: rounded(all.p99),
    max: rounded(all.max),
  };
}

function rounded(value: number): number {
  return Number(value.toFixed(2));
}

/** Creates persons to ask for. Returns what went wrong first, or "". */
async function seed({ url, timeoutS }: Options, tasks: readonly Task[]): Promise<string> {
  let wrong = "";
  await inParallel(32, "creating persons", tasks, async ({ path, body = "", check }) => {
    if (wrong !== "") return;
    const response = await fetch(new URL(path, url), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body,
      signal: AbortSignal.timeout(timeoutS * 1000),
    });
    wrong ||= check(response.status, await response.text(), response.headers.get("location") ?? undefined);
  });
  return wrong;
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

/** The registry of this folder on an empty embedded database. Rejects with what it said when it does not start. */
async function startServer(): Promise<{ url: string; stop(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "pessoas-bench-"));
  const { DATABASE_URL, SOCKET, HOST, ...env } = process.env;
  const child = Bun.spawn([process.execPath, "run", join(import.meta.dir, "..", "server.ts")], {
    env: { ...env, PORT: "0", DATA_DIR: join(folder, "data") },
    stdout: "pipe",
    stderr: "inherit",
  });
  // Once for all who ask: Ctrl-C, and the run that then fails, must both wait for its end.
  let stopping: Promise<void> | undefined;
  const stop = () => {
    stopping ??= (async () => {
      child.kill("SIGTERM");
      await child.exited;
      await rm(folder, { recursive: true, force: true });
    })();
    return stopping;
  };
  // Read to its end: a server whose output nobody takes any more would be stopped by it.
  const { promise: listening, resolve } = Promise.withResolvers<string | undefined>();
  void (async () => {
    const decoder = new TextDecoder();
    let said = "";
    for await (const chunk of child.stdout) {
      said += decoder.decode(chunk, { stream: true });
      const url = /listening on ([^\s"]+)/.exec(said)?.[1];
      if (url) resolve(url);
    }
    resolve(undefined);
  })();
  const url = await listening;
  if (url !== undefined) return { url, stop };
  await stop();
  throw new Error("bun run server.ts does not start");
}

async function listens(url: string): Promise<boolean> {
  const { hostname, port } = new URL(url);
  const socket = await Bun.connect({ hostname, port: Number(port), socket: { data() {} } }).catch(
    () => undefined,
  );
  socket?.end();
  return socket !== undefined;
}

/** What is told in the page above the pictures. */
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

function render(results: readonly Result[], title: string): string {
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
  const { values } = parseArgs({
    options: {
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
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(usage);
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

  const usual = `http://127.0.0.1:${process.env.PORT || 9999}`;
  const own = values.url === undefined && !(await listens(usual)) ? await startServer() : undefined;
  const options: Options = { url: own?.url ?? values.url ?? usual, ...settings };
  for (const [signal, code] of [
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const) {
    process.on(signal, async () => {
      await own?.stop();
      process.exit(code);
    });
  }
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

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(`bench.ts: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}
