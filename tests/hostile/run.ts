// Attacks the registry, and measures a well-behaved client beside the attack.
import { join } from "node:path";
import { latencyAt, type Result } from "../../stress-test/load/results.ts";
import { namedOf, readArguments, wholeOf } from "../../tools/arguments.ts";
import { abortedBySignals } from "../helpers/topology.ts";
import { attacks } from "./attacks.ts";
import type { Experience } from "./neighbour.ts";
import { directly, throughNginx } from "./target.ts";

const promiseMs = 1000; // of the p99 of a well-behaved client's creates and reads
const usage = `Usage: bun run test:hostile [--direct] [--people N] [--attack NAME]...

Attacks the contest's topology through nginx, for 12 s each, while a well-behaved client creates, reads and searches 20
times a second. Exits with 1 if a create or read of that client fails or its p99 is over ${promiseMs} ms, if an attack gets
a wrong answer or keeps a connection for too long, or if a process ends or takes too much memory. The topology is a new
project on a free port, and is removed afterwards. Needs Docker with Compose.

  --direct         attacks bun run server.ts without nginx, and needs no Docker
  --people N       persons in the registry at the start, default 50000; a million take minutes
  --attack NAME    run only this one; may be given several times
  -h, --help       this text

Attacks: ${attacks.map(({ name }) => name).join(", ")}
idle needs 10,500 open files (ulimit -n).`;

const { direct, people, chosen } = readArguments(
  usage,
  {
    direct: { type: "boolean", default: false },
    people: { type: "string", default: "50000" },
    attack: { type: "string", multiple: true },
  },
  ({ direct, people, attack }) => ({
    direct,
    people: wholeOf("people", people, 0, 1e8),
    chosen: namedOf("attack", attacks, attack),
  }),
);
const abandoned = abortedBySignals();
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
  const experience = await neighbour.leave();
  const of = (kind: string) => experience.filter((result) => result.kind === kind);
  const [creates, reads, searches] = [of("create"), of("read"), of("search")];
  const isRight = ({ fault }: Result) => fault === "";
  const failures = [...creates, ...reads].filter((result) => !isRight(result));
  const [create50, create99, read99, search99] = [
    latencyAt(50, creates.filter(isRight)),
    latencyAt(99, creates.filter(isRight)),
    latencyAt(99, reads.filter(isRight)),
    latencyAt(99, searches.filter(isRight)),
  ] as const;
  const p99 = Math.max(create99, read99);
  const [failure] = failures;
  if (failure)
    problems.push(`the well-behaved client: ${failures.length} failures, such as ${describe(failure)}`);
  if (p99 > promiseMs) problems.push(`the well-behaved client: p99 ${p99} ms`);
  const refused = searches.filter((result) => !isRight(result));
  const wrong = refused.find(({ status }) => status !== 503);
  if (wrong) problems.push(`a search of the well-behaved client: ${describe(wrong)}`);
  const conditions = await target.condition();
  problems.push(...conditions.flatMap((each) => each.problems));
  if (problems.length === 0) passed++;
  else failed++;
  table.push([
    name,
    ...[create50, create99, read99].map((ms) => `${ms} ms`),
    Number.isFinite(search99) ? `${search99} ms` : "",
    `${refused.length} of ${searches.length}`,
    String(failures.length),
    ...conditions.map(({ peak }) => `${Math.round(peak / 2 ** 20)} MiB`),
  ]);
  console.error(`${problems.length === 0 ? "ok  " : "FAIL"}  ${name}: ${became}`);
  for (const problem of problems) console.error(`      ${problem}`);
  if (problems.length > 0) console.error(await target.logs());
}

/** Starts the well-behaved client; `leave` resolves with its answers. */
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

function describe({ ms, fault }: Result): string {
  return `${fault} after ${Math.round(ms)} ms`;
}
