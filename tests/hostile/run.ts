// Attacks the registry, and asks a well-behaved client beside it how it is.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { attacks } from "./attacks.ts";
import type { Experience } from "./neighbour.ts";
import { directly, throughNginx } from "./target.ts";

const promiseMs = 1000; // of the p99 of a well-behaved client's creates and reads
const usage = `Usage: bun run test:hostile [--direct] [--people N] [--attack NAME]...

Attacks the contest's topology through nginx, for 12 s each, while a client beside it creates, reads and searches 20
times a second. Exits with 1 when one of its creates or reads fails or their p99 is over ${promiseMs} ms, when an attack gets
an answer that it should not or is not cut in time, or when a process ended or took too much memory. It runs on a port and
under a project name of its own, and removes them. Needs Docker with Compose.

  --direct         attacks one instance without nginx, as bun run server.ts starts it, and needs no Docker
  --people N       how many are in the registry before, default 50000; a million take minutes to fill in
  --attack NAME    only this one; may be given several times
  -h, --help       this text

Attacks: ${attacks.map(({ name }) => name).join(", ")}
idle needs 10,500 open files (ulimit -n).`;

const { direct, people, chosen } = readArguments();
const abandoned = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => abandoned.abort(new Error(signal)));
}
const target = await (direct ? directly : throughNginx)(abandoned.signal, people);
const heads = ["create p50", "p99", "read p99", "search p99", "searches refused", "failed", ...target.parts];
const table = [
  ["attack", ...heads],
  ["---", ...heads.map(() => "---:")],
];
let passed = 0;
let failed = 0;

try {
  await check("nobody", async () => {
    await Bun.sleep(12_000);
    return "no attack, to compare with";
  });
  for (const { name, run } of chosen) await check(name, () => run(target, abandoned.signal));
} catch (error) {
  if (!abandoned.signal.aborted) throw error;
} finally {
  await target.remove();
}
for (const row of table) console.log(`| ${row.join(" | ")} |`);
if (abandoned.signal.aborted) console.log("interrupted");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && !abandoned.signal.aborted ? 0 : 1);

async function check(name: string, attack: () => Promise<string>) {
  abandoned.signal.throwIfAborted();
  const neighbour = settle();
  const problems: string[] = [];
  let became = "";
  try {
    became = await attack();
  } catch (error) {
    abandoned.signal.throwIfAborted();
    problems.push((error as Error).message);
  }
  const { create, read, search } = await neighbour.leave();
  const failures = [...create.failures, ...read.failures];
  const p99 = Math.max(percentile(create.ms, 99), percentile(read.ms, 99));
  if (failures.length > 0)
    problems.push(`the client beside it: ${failures.length} × ${failures[0]} and the like`);
  if (p99 > promiseMs) problems.push(`the client beside it: p99 ${p99} ms`);
  const [wrong] = search.failures.filter((each) => !each.startsWith("503"));
  if (wrong) problems.push(`a search beside it: ${wrong}`);
  const conditions = await target.condition();
  problems.push(...conditions.flatMap((each) => each.problems));
  if (problems.length === 0) passed++;
  else failed++;
  table.push([
    name,
    ...[percentile(create.ms, 50), percentile(create.ms, 99), percentile(read.ms, 99)].map(
      (ms) => `${ms} ms`,
    ),
    search.ms.length > 0 ? `${percentile(search.ms, 99)} ms` : "",
    `${search.failures.length} of ${search.failures.length + search.ms.length}`,
    String(failures.length),
    ...conditions.map(({ peak }) => `${Math.round(peak / 2 ** 20)} MiB`),
  ]);
  console.error(`${problems.length === 0 ? "ok  " : "FAIL"}  ${name}: ${became}`);
  for (const problem of problems) console.error(`      ${problem}`);
  if (problems.length > 0) console.error(await target.logs());
}

/** A client beside the attack; `leave` resolves with what it has seen. */
function settle() {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "neighbour.ts"), target.url], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  return {
    async leave(): Promise<Experience> {
      child.stdin.end();
      return (await new Response(child.stdout).json()) as Experience;
    },
  };
}

function percentile(ms: number[], percent: number): number {
  const sorted = ms.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.ceil((percent / 100) * sorted.length) - 1] ?? Number.POSITIVE_INFINITY);
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        direct: { type: "boolean", default: false },
        people: { type: "string", default: "50000" },
        attack: { type: "string", multiple: true },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const people = Number(values.people);
    if (!Number.isSafeInteger(people) || people < 0)
      throw new RangeError(`--people: expected a whole number, got "${values.people}"`);
    const unknown = values.attack?.find((name) => !attacks.some((each) => each.name === name));
    if (unknown !== undefined)
      throw new RangeError(`--attack: there is none called "${unknown}"; see --help`);
    return {
      direct: values.direct,
      people,
      chosen: attacks.filter(({ name }) => values.attack?.includes(name) ?? true),
    };
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}
