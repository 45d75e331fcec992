// Sends the contest's topology twice its peak. Needs Docker with Compose.
import { randomFrom } from "../../stress-test/data/payloads.ts";
import { evenly } from "../../stress-test/load/arrivals.ts";
import { generator, type Run } from "../../stress-test/load/generator.ts";
import { type Answer, headerOf, type Request } from "../../stress-test/load/http.ts";
import {
  contestShares,
  create,
  holds,
  locationOf,
  mix,
  read,
  search,
  searchWithoutTerm,
} from "../../stress-test/load/requests.ts";
import { faultsOf, latencyAt, type Result } from "../../stress-test/load/results.ts";
import { numberOf, readArguments } from "../../tools/arguments.ts";
import { abortedBySignals, services, topology } from "../helpers/topology.ts";

const leastGoodput = 80; // % of the peak
const leastOfKind = 50; // % of the peak of creates, reads and searches each
const mostRefusalMs = 1000; // p99
const recoveryS = 5;
const step = 1.1; // factor between steps in search of the peak
const stepS = 4; // seconds per step
const nearlyAll = 0.97; // the share answered at the end of a sustained step
const people = 55_000; // beyond the 50,000 in memory a create costs more
const usage = `Usage: bun run test:overload [--seconds N] [--times X]

Fills the contest's topology with ${people} persons and finds its peak with the contest's mix of creates, reads and searches
through nginx: first the rate of a closed loop of 64, then an open loop that grows by a tenth until a request is refused or
queued. Then sends X times the peak. Latency counts from when a request was due. Exits with 1 unless
  - at least ${leastGoodput} % of the peak is still answered, ${leastOfKind} % of each kind, and every person with a 201 is stored
  - all other requests get 503 with Retry-After, 99 % of them within ${mostRefusalMs} ms
  - no process is killed or restarts, so memory stays within the limits
  - ${recoveryS} s later a quarter of the first rate is answered as quickly as before, and none is refused
It uses a port and a project name of its own, and removes them. It takes N + 60 seconds, 4,100 open files (ulimit -n) and
2 idle processors: 1.5 for the topology, 0.5 for the load. With less, "sent/s" is below X times the peak, or latencies
are those of the machine.

  --seconds N     length of the overload, default 60
  --times X       load as a multiple of the peak, default 2
  -h, --help      this text`;

const refused = "503 with Retry-After";
const kinds = ["create", "read", "search", "search without t"] as const;
type Kind = (typeof kinds)[number];

/** A run, and the seconds over which its requests were due. */
type Phase = Run & { seconds: number; endMs: number };

const { seconds, times } = readArguments(
  usage,
  { seconds: { type: "string", default: "60" }, times: { type: "string", default: "2" } },
  (values) => ({
    seconds: numberOf("seconds", values.seconds, 0.001, 86_400),
    times: numberOf("times", values.times, 0.001, 1000),
  }),
);
const abandoned = abortedBySignals();
const { url, up, health, sql, compose, remove } = topology(abandoned.signal, { name: "overload" });
const load = generator({ url, timeoutMs: 60_000 });
abandoned.signal.addEventListener("abort", () => load.close());
const created: string[] = []; // ids of all creates with a 201
const next = requests();
const runs: Run[] = [];
const problems: string[] = [];
const table = [
  ["", "sent/s", "answered/s", "creates", "reads", "searches", "without t"].concat(
    ...["p50", "p99", "503/s", "p50", "p99"],
  ),
  ["---", ...new Array<string>(11).fill("---:")],
];

try {
  await up();
  await check();
} catch (error) {
  problems.push(((abandoned.signal.reason ?? error) as Error).message);
} finally {
  load.close();
  await remove();
}
for (const row of table) console.log(`| ${row.join(" | ")} |`);
for (const problem of problems) console.log(`FAIL  ${problem}`);
if (problems.length === 0) console.log("passed");
process.exit(problems.length === 0 ? 0 : 1);

async function check() {
  await load.warm();
  while (created.length < people) await closed(1);
  await quiet();
  const first = await closed(5);
  tell("64 at a time", first);
  const usual = goodput(first) / 4;
  await quiet();
  const before = await open(usual, 5);
  tell("a quarter of that", before);
  const best = await sustainable(first);
  const peak = goodput(best);
  await quiet();
  const over = await open(peak * times, seconds);
  const settling: Phase[] = [];
  for (let s = 0; s < recoveryS; s++) settling.push(await open(usual, 1));
  const after = await open(usual, 5);
  await quiet();
  tell(`${times} × the peak, ${seconds} s`, over);
  for (const [s, each] of settling.entries()) tell(`the quarter, second ${s + 1} afterwards`, each);
  tell("the quarter, then", after);

  const whole = percent(goodput(over) / peak);
  const ofKind = percent(Math.min(...kinds.map((kind) => goodput(over, kind) / goodput(best, kind))));
  console.error(`${whole} % of the peak was answered, and at least ${ofKind} % of each kind`);
  if (whole < leastGoodput) problems.push(`${whole} % of the peak was answered`);
  if (ofKind < leastOfKind) problems.push(`${ofKind} % of the peak of one kind was answered`);
  const p99 = latencyAt(99, shed(over));
  if (shed(over).length === 0) problems.push("nothing was refused: it was not overloaded");
  else if (p99 > mostRefusalMs) problems.push(`the p99 of the refusals was ${p99} ms`);
  const faults = faultsOf(runs.flatMap(({ results }) => results.filter(({ fault }) => fault !== refused)));
  problems.push(...Object.entries(faults).map(([fault, times]) => `${times} × ${fault}`));
  if (shed(after).length > 0) problems.push(`${shed(after).length} were refused afterwards`);
  const [normal = 0, now = 0] = [before, after].map((phase) => latencyAt(99, good(phase)));
  if (now > 2 * normal + 20) problems.push(`the p99 was ${normal} ms before, and ${now} ms afterwards`);

  for (const service of services) {
    const { peakBytes, killed, restarts } = await health(service);
    console.error(`${service}: at most ${Math.round(peakBytes / 2 ** 20)} MiB, with file cache`);
    if (killed > 0) problems.push(`${service}: ${killed} processes were killed for their memory`);
    if (restarts > 0) problems.push(`${service}: has ended ${restarts} times`);
  }
  const stored = new Set((await sql("select id from pessoas")).split("\n"));
  const lost = created.filter((id) => !stored.has(id)).length;
  console.error(`${created.length} got 201, ${lost} of them are not stored`);
  if (lost > 0) problems.push(`${lost} of ${created.length} who got 201 are not stored`);
  if (problems.length > 0) console.error(await compose("logs", "--tail", "5"));
}

/** The contest's mix, with names that many persons have. */
function requests(): () => Request {
  const random = randomFrom(1);
  const kind = mix(contestShares);
  const names = ["Ana", "Silva", "Maria", "Santos", "Francisca", "Oliveira", "Beatriz", "Souza", "Ribeiro"];
  const apelido = (n: number) => `o${n.toString(36).padStart(6, "0")}`;
  let made = 0;
  const makers: Record<Kind, () => Request> = {
    create() {
      const body = JSON.stringify({
        apelido: apelido(++made),
        nome: `${random.pick(names)} ${random.pick(names)}`,
        nascimento: "1985-09-23",
        stack: random.oneIn(2) ? null : ["Bun", "Node", "Postgres"],
      });
      return create(body, [201], (answer) => {
        created.push(locationOf(answer).slice("/pessoas/".length));
        return holds(body.slice(1))(answer);
      });
    },
    read() {
      const id = random.pick(created);
      return read(`/pessoas/${id}`, holds(`{"id":"${id}",`));
    },
    search: () => search(random.oneIn(2) ? random.pick(names) : apelido(random.int(1, made))),
    "search without t": () => searchWithoutTerm(holds('"status":400')),
  };
  return () => {
    const request = makers[created.length === 0 ? "create" : kind()]();
    const check = (answer: Answer) => {
      const shed = answer.status === 503 && headerOf(answer, "retry-after") !== undefined;
      return shed ? refused : request.check(answer);
    };
    return { ...request, check };
  };
}

/** A closed loop of 64 requests at once. */
async function closed(seconds: number): Promise<Phase> {
  return await phaseOf(load.closed({ users: 64, seconds, next }));
}

/** An open loop of `rate` requests per second. Answers after its end count, too. */
async function open(rate: number, seconds: number): Promise<Phase> {
  return await phaseOf(load.open({ arrivals: evenly(rate, seconds), tickMs: 2, next }));
}

async function phaseOf(run: Run): Promise<Phase> {
  runs.push(run);
  const startMs = performance.now();
  await run.sent;
  abandoned.signal.throwIfAborted();
  const endMs = performance.now();
  return Object.assign(run, { seconds: (endMs - startMs) / 1000, endMs });
}

/** Resolves when everything is answered. */
async function quiet() {
  await Promise.all(runs.map(({ answered }) => answered));
  abandoned.signal.throwIfAborted();
}

/** The highest rate at which no request is refused, and nearly all are answered at the end of the step. */
async function sustainable(first: Phase): Promise<Phase> {
  for (let best = first; ; ) {
    await quiet();
    const rate = goodput(best) * step;
    const next = await open(rate, stepS);
    tell(`${rate.toFixed()} a second`, next);
    if (goodput(next) < rate * nearlyAll || shed(next).length > 0) return best;
    best = next;
  }
}

/** Right answers per second, of one kind or of all. */
function goodput(phase: Phase, kind?: Kind): number {
  const inTime = good(phase).filter(({ dueMs, ms }) => dueMs + ms <= phase.endMs);
  return inTime.filter((result) => result.kind === (kind ?? result.kind)).length / phase.seconds;
}

function good({ results }: Phase): Result[] {
  return results.filter(({ fault }) => fault === "");
}

function shed({ results }: Phase): Result[] {
  return results.filter(({ fault }) => fault === refused);
}

function tell(what: string, phase: Phase) {
  const { started, seconds } = phase;
  const latencies = (of: Result[]) => [50, 99].map((p) => (of.length === 0 ? "" : `${latencyAt(p, of)} ms`));
  const rates = [started / seconds, goodput(phase), ...kinds.map((kind) => goodput(phase, kind))];
  table.push([
    what,
    ...rates.map((perSecond) => perSecond.toFixed()),
    ...latencies(good(phase)),
    (shed(phase).length / seconds).toFixed(),
    ...latencies(shed(phase)),
  ]);
  console.error(table.at(-1)?.join("  "));
}

function percent(share: number): number {
  return Math.round(100 * share);
}
