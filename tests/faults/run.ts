// Breaks the contest's topology under load, and audits every answer. Needs Docker with Compose.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, parse } from "node:path";
import { randomFrom } from "../../stress-test/data/payloads.ts";
import { openJournal, readJournal } from "../../stress-test/load/journal.ts";
import { namedOf, readArguments, wholeOf } from "../../tools/arguments.ts";
import { client } from "../helpers/requests.ts";
import { type Topology, topology } from "../helpers/topology.ts";
import { audit, type Verdict } from "./audit.ts";
import { startLoad } from "./load.ts";
import { type Context, NotHere, type Scenario, scenarios } from "./scenarios.ts";

const usage = `Usage: bun run test:faults [--rounds N] [--seed S] [--scenario NAME]... [--lossy]

Breaks the contest's topology at random moments under load, waits for its recovery, and reads every person. Exits with
1 if a person with a 201 is lost or changed, an apelido is stored twice, or an answer breaks the contract. Each topology
is a new project on free ports, and is removed afterwards.

  --rounds N        rounds of each scenario, default 1
  --seed S          seed of persons and moments, a whole number; default: a random one, which is printed
  --scenario NAME   run only this one; may be given several times
  --lossy           turn Postgres' synchronous_commit off, so that the audit of kill-postgres and power-loss fails
  -h, --help        this text

Scenarios: ${scenarios.map(({ name }) => name).join(", ")}
power-loss and stall-disk need root on Linux, and are skipped elsewhere.`;

const rate = 400; // creates per second; the contest's peak is 600
const leastRate = 300;
const roundTimeoutMs = 120_000;
const instances = ["api1", "api2"] as const;

type Round = Verdict & { longestGapMs: number };
/** The running topology, and the number of its persons. */
type Up = { topology: Topology; override: string | undefined; stored: number; remove(): Promise<void> };

const { rounds, seed, chosen, lossy } = readArguments(
  usage,
  {
    rounds: { type: "string", default: "1" },
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e6)) },
    scenario: { type: "string", multiple: true },
    lossy: { type: "boolean", default: false },
  },
  ({ rounds, seed, scenario, lossy }) => ({
    rounds: wholeOf("rounds", rounds, 1, 10_000),
    seed: wholeOf("seed", seed, 0, 2 ** 32 - 1),
    chosen: namedOf("scenario", scenarios, scenario),
    lossy,
  }),
);
const abandoned = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.on(signal, () => abandoned.abort(new Error(signal)));
}
const journals = await mkdtemp(join(tmpdir(), "pessoas-faults-"));
const table = [
  ["scenario", "rounds", "acknowledged", "unknown", "lost", "changed", "twice", "longest gap"],
  ["---", "---:", "---:", "---:", "---:", "---:", "---:", "---:"],
];
let passed = 0;
let failed = 0;
let current: Up | undefined;

console.error(`seed ${seed}, ${rounds} round${rounds === 1 ? "" : "s"} of each scenario, ${rate} creates/s`);
try {
  for (const scenario of chosen) await runScenario(scenario);
} catch (error) {
  if (!abandoned.signal.aborted) throw error;
} finally {
  await current?.remove();
}
if (failed === 0) await rm(journals, { recursive: true, force: true });

for (const row of table) console.log(`| ${row.join(" | ")} |`);
if (abandoned.signal.aborted) console.log("interrupted: rounds that are not in the table did not end");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && !abandoned.signal.aborted ? 0 : 1);

async function runScenario(scenario: Scenario) {
  const { name } = scenario;
  const done: Round[] = [];
  const problems: string[] = [];
  for (let number = 1; number <= rounds; number++) {
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[K${name}: round ${number} of ${rounds}`);
    const path = join(journals, `${name}-${number}.jsonl`);
    let found: string[];
    try {
      const round = await runRound(scenario, number, path);
      done.push(round);
      found = [...round.lost, ...round.changed, ...round.twice, ...round.wrong];
    } catch (error) {
      abandoned.signal.throwIfAborted();
      if (error instanceof NotHere) {
        table.push([name, `skipped: ${error.message}`, ...new Array<string>(6).fill("")]);
        return console.error(`${clear()}skip  ${name}: ${error.message}`);
      }
      found = [(error as Error).message];
    }
    if (found.length === 0) await rm(path);
    else {
      problems.push(...found.slice(0, 5), ...(found.length > 5 ? [`and ${found.length - 5} more`] : []));
      problems.push(`round ${number} of seed ${seed}; every answer is in ${path}`);
      // The next round gets a new topology after a failure.
      await current?.remove();
      current = undefined;
    }
  }
  if (problems.length === 0) passed++;
  else failed++;
  const sum = (of: (round: Round) => number) => done.reduce((all, round) => all + of(round), 0);
  const gap = Math.max(0, ...done.map(({ longestGapMs }) => longestGapMs));
  table.push([
    name,
    ...[
      rounds,
      sum((round) => round.acknowledged),
      sum((round) => round.unknown),
      sum((round) => round.lost.length),
      sum((round) => round.changed.length),
      sum((round) => round.twice.length),
    ].map(String),
    `${(gap / 1000).toFixed(1)} s`,
  ]);
  console.error(`${clear()}${problems.length === 0 ? "ok  " : "FAIL"}  ${table.at(-1)?.join("  ")}`);
  for (const problem of problems) console.error(`      ${problem}`);
}

function clear(): string {
  return process.stderr.isTTY ? "\r\x1b[K" : "";
}

/** One round: load, a fault at a random moment, recovery, audit. */
async function runRound(scenario: Scenario, number: number, path: string): Promise<Round> {
  const random = randomFrom(Bun.hash.crc32(`${seed} ${scenario.name} ${number}`));
  const up = await bringUp(scenario);
  const { url } = up.topology;
  const signal = AbortSignal.any([abandoned.signal, AbortSignal.timeout(roundTimeoutMs)]);
  const journal = openJournal(path);
  const momentMs = random.int(500, 2500);
  const load = startLoad({ url, journal, rate, random });
  const context: Context = { topology: up.topology, random, signal, create: load.create };
  let sent: Awaited<ReturnType<typeof load.stop>>;
  try {
    const strike = await scenario.prepare(context);
    await Bun.sleep(momentMs);
    await strike();
    await isWhole(up.topology, signal);
    await load.acknowledged();
  } finally {
    sent = await load.stop();
    journal.close();
  }
  // Empties the caches, which could hide what the database has lost.
  await up.topology.compose("restart", "--timeout", "0", ...instances);
  await isWhole(up.topology, signal);
  const verdict = await audit(url, readJournal(path), up.stored);
  up.stored = verdict.stored;
  if (scenario.answersAll && verdict.unknown > 0)
    verdict.wrong.push(`${verdict.unknown} creates got no answer, or 503`);
  if (sent.longestGapMs > (scenario.mostGapMs ?? Infinity))
    verdict.wrong.push(`no create was acknowledged for ${(sent.longestGapMs / 1000).toFixed(1)} s`);
  if (sent.perSecond < leastRate)
    verdict.wrong.push(`the load was only ${sent.perSecond.toFixed()} creates/s`);
  return { ...verdict, longestGapMs: sent.longestGapMs };
}

async function bringUp({ override, surroundings }: Scenario): Promise<Up> {
  if (current && current.override === override) return current;
  await current?.remove();
  current = undefined;
  const around = await surroundings?.();
  const file = override && `tests/faults/${override}`;
  const project = {
    name: `faults-${parse(override ?? "contest").name}`,
    override: file,
    env: around?.env ?? {},
  };
  const made = topology(abandoned.signal, project);
  current = {
    topology: made,
    override,
    stored: 0,
    async remove() {
      await made.remove();
      await around?.remove();
    },
  };
  await made.up();
  if (lossy) {
    await made.sql("alter role pessoas set synchronous_commit = off");
    await made.compose("restart", ...instances);
  }
  return current;
}

/** Resolves when both instances listen and ten requests in a row reach the database through nginx. */
async function isWhole({ url, inside }: Topology, signal: AbortSignal) {
  const { get } = client(url);
  const listens = 'grep -q "$SOCKET" /proc/net/unix';
  const again = async () => {
    signal.throwIfAborted();
    await Bun.sleep(50);
  };
  for (const instance of instances) {
    while ((await inside(instance, "sh", "-c", listens).catch(() => undefined)) === undefined) await again();
  }
  for (let inARow = 0; inARow < 10; ) {
    const { status } = await get("/readyz").catch(() => ({ status: 0 }));
    if (status === 200) inARow++;
    else {
      inARow = 0;
      await again();
    }
  }
}
