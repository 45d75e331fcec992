// Sends the topology of the contest twice what it can bear. Needs Docker with Compose.
import { parseArgs } from "node:util";
import { services, topology } from "../contest/topology.ts";
import { generator, type Kind, kinds, type Phase } from "./generator.ts";

const leastGoodput = 80; // % of the peak
const leastOfKind = 50; // % of the peak of creates, reads and searches each
const mostRefusalMs = 1000; // p99
const recoveryS = 5;
const step = 1.1; // in search of the peak: so much more
const stepS = 4; // for so long
const nearlyAll = 0.97; // is answered at its end, where it is sustained
const people = 55_000; // from the 50,001st on a create costs more, and it is the same for long
const usage = `Usage: bun run test:overload [--seconds N] [--times X]

Fills the contest's topology with ${people} persons and finds its peak, through nginx: creates, reads and searches as the
contest mixes them, first as many as are answered 64 at a time, then a tenth more, and so on, whether answers come or not,
until somebody is refused or waits. Then sends X times the peak. Latency counts from when each was due. Exits with 1 unless
  - at least ${leastGoodput} % of the peak is still answered, ${leastOfKind} % of each kind, rightly, and whoever got 201 is stored
  - all others get 503 with Retry-After and nothing else, 99 % of them within ${mostRefusalMs} ms
  - no process is killed or restarts, so memory stays within the limits
  - ${recoveryS} s later a usual load, a quarter of the first, is answered as quickly as before, and nobody is refused
It runs on a port and under a project name of its own, and removes them. It takes N and 60 seconds, 4,100 open files
(ulimit -n), and 2 processors that do nothing else: the topology has 1.5 of them, what sends the other half. Where that
is too little, "sent/s" is less than X times the peak, or the latencies are those of the machine.

  --seconds N     how long it is overloaded, default 60
  --times X       how much of the peak is sent, default 2
  -h, --help      this text`;

const { seconds, times } = readArguments();
const abandoned = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => abandoned.abort(new Error(signal)));
}
const { url, up, health, sql, compose, remove } = topology(abandoned.signal, { name: "overload" });
const load = generator(url, abandoned.signal);
const problems: string[] = [];
const table = [
  [
    "",
    "sent/s",
    "answered/s",
    "creates",
    "reads",
    "searches",
    "without t",
    "p50",
    "p99",
    "503/s",
    "p50",
    "p99",
  ],
  ["---", ...new Array<string>(11).fill("---:")],
];

try {
  await up();
  await check();
} catch (error) {
  problems.push((error as Error).message);
} finally {
  load.end();
  await remove();
}
for (const row of table) console.log(`| ${row.join(" | ")} |`);
for (const problem of problems) console.log(`FAIL  ${problem}`);
if (problems.length === 0) console.log("passed");
process.exit(problems.length === 0 ? 0 : 1);

async function check() {
  while (load.created.length < people) await load.closed(64, 1);
  await load.quiet();
  const closed = await load.closed(64, 5);
  tell("64 at a time", closed);
  const usual = goodput(closed) / 4;
  await load.quiet();
  const before = await load.open(usual, 5);
  tell("a quarter of that", before);
  const best = await sustainable(closed);
  const peak = goodput(best);
  await load.quiet();
  const over = await load.open(peak * times, seconds);
  const settling: Phase[] = [];
  for (let s = 0; s < recoveryS; s++) settling.push(await load.open(usual, 1));
  const after = await load.open(usual, 5);
  await load.quiet();
  tell(`${times} × the peak, ${seconds} s`, over);
  for (const [s, each] of settling.entries()) tell(`the quarter, second ${s + 1} afterwards`, each);
  tell("the quarter, then", after);

  const whole = percent(goodput(over) / peak);
  const ofKind = percent(Math.min(...kinds.map((kind) => goodput(over, kind) / goodput(best, kind))));
  console.error(`${whole} % of the peak was answered, and at least ${ofKind} % of each kind`);
  if (whole < leastGoodput) problems.push(`${whole} % of the peak was answered`);
  if (ofKind < leastOfKind) problems.push(`${ofKind} % of the peak of one kind was answered`);
  const p99 = percentile(over.refusedMs, 99);
  if (over.refusedMs.length === 0) problems.push("nothing was refused: it was not overloaded");
  if (p99 > mostRefusalMs) problems.push(`the p99 of the refusals was ${p99} ms`);
  const { wrong } = load;
  if (wrong.length > 0) problems.push(`${wrong.length} wrong answers, such as ${wrong[0]}`);
  if (after.refusedMs.length > 0) problems.push(`${after.refusedMs.length} were refused afterwards`);
  const [normal, now] = [before, after].map(({ goodMs }) => percentile(goodMs, 99)) as [number, number];
  if (now > 2 * normal + 20) problems.push(`the p99 was ${normal} ms before, and ${now} ms afterwards`);

  for (const service of services) {
    const { peakBytes, killed, restarts } = await health(service);
    console.error(`${service}: at most ${Math.round(peakBytes / 2 ** 20)} MiB, with file cache`);
    if (killed > 0) problems.push(`${service}: ${killed} processes were killed for their memory`);
    if (restarts > 0) problems.push(`${service}: has ended ${restarts} times`);
  }
  const stored = new Set((await sql("select id from pessoas")).split("\n"));
  const lost = load.created.filter((id) => !stored.has(id)).length;
  console.error(`${load.created.length} got 201, ${lost} of them are not stored`);
  if (lost > 0) problems.push(`${lost} of ${load.created.length} who got 201 are not stored`);
  if (problems.length > 0) console.error(await compose("logs", "--tail", "5"));
}

/** More and more a second, until somebody is refused or has no answer yet at the end: the one before that. */
async function sustainable(closed: Phase): Promise<Phase> {
  for (let best = closed; ; ) {
    await load.quiet();
    const rate = goodput(best) * step;
    const next = await load.open(rate, stepS);
    tell(`${rate.toFixed()} a second`, next);
    if (goodput(next) < rate * nearlyAll || next.refusedMs.length > 0) return best;
    best = next;
  }
}

/** Right answers a second, of one kind or of all. */
function goodput({ inTime, seconds }: Phase, kind?: Kind): number {
  const counted: readonly Kind[] = kind ? [kind] : kinds;
  return counted.reduce((sum, each) => sum + inTime[each], 0) / seconds;
}

function tell(what: string, phase: Phase) {
  const { sent, seconds, goodMs, refusedMs } = phase;
  const ms = (all: number[]) => [50, 99].map((p) => (all.length === 0 ? "" : `${percentile(all, p)} ms`));
  const rates = [sent / seconds, goodput(phase), ...kinds.map((kind) => goodput(phase, kind))];
  table.push([
    what,
    ...rates.map((perSecond) => perSecond.toFixed()),
    ...ms(goodMs),
    (refusedMs.length / seconds).toFixed(),
    ...ms(refusedMs),
  ]);
  console.error(table.at(-1)?.join("  "));
}

function percent(share: number): number {
  return Math.round(100 * share);
}

function percentile(ms: number[], rank: number): number {
  const sorted = ms.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.ceil((rank / 100) * sorted.length) - 1] ?? 0);
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        seconds: { type: "string", default: "60" },
        times: { type: "string", default: "2" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const [seconds, times] = [Number(values.seconds), Number(values.times)];
    for (const [name, value] of Object.entries({ seconds, times })) {
      if (!(value > 0)) throw new RangeError(`--${name}: expected a positive number`);
    }
    return { seconds, times };
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}
