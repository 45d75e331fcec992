import { join, resolve } from "node:path";
import { $ } from "bun";
import { abortedBySignals, type Topology, topology } from "../tests/helpers/topology.ts";
import { numberOf, personsOf, readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { store } from "./data/bulk-store.ts";
import { people } from "./data/people.ts";
import { type Load, type LoadOptions, loads, type Order, type Report, type Sent } from "./load/cost-loads.ts";
import { settledCount } from "./measure/audit.ts";
import { readCpuSeconds, readUsage } from "./measure/cgroups.ts";
import { mebibytes, number, table } from "./measure/format.ts";
import { describeMachine } from "./measure/machine.ts";
import { type Spread, spreadOf } from "./measure/statistics.ts";
import { findServices } from "./measure/usage.ts";

const usage = `Usage: bun run bench:cost [OPTIONS]

Measures the CPU-seconds of every service for 1,000 requests (from the cgroups), latencies and memory. Starts
docker-compose.yml with its limits as a new project on a free port, and removes it afterwards. With --against or
--against-… a second project runs, too; each is idle while the other is measured. Slices alternate (A B, B A, A B, …),
and each pair gives a ratio. A ratio within two standard errors of 1 is noise; more rounds make the error smaller. Every
answer is checked, and the count after each slice. The CPU of a slice includes health checks.

  --against DIR            another checkout of this project to compare with
  --override FILE          a compose file that changes the one of this checkout
  --against-override FILE  the same for the other side (without --against: this checkout again)
  --people N               people in the registry at the start, stored by COPY: 10k, 300k, 1m … up to 10m (default 0).
                           Beyond 50k saturation needs slices of 30 s, because the index merges 65,536 people at once
  --against-people N       the same for the other side (without --against: this checkout again)
  --only NAME              official    the contest's peak, open loop. Each user has one connection: it creates a person
                                       (or an invalid one), waits 1 to 30 ms and reads it; or it searches, with t or not
                           saturation  creates of valid persons over 64 connections, as fast as answers come
                           reads       reads of the 1,000 newest persons over 64 connections, as fast as answers come
                           (default: all three, one after the other)
  --rounds N               slices of each load (default 6)
  --seconds S              duration of a slice, 1 to 120 (default 2.5)
  --rate N                 creates a second in the open loop, 1 to 2000. Searches are 1/6 of it, searches without t 1/15
                           (default 300, half of the contest's)
  --seed N                 seed of payloads and arrivals (default 1)
  --json                   JSON instead of the tables
  -h, --help               this text

Exit code: 0 all was as expected, 1 an answer or a count was wrong, 2 could not be run.`;

const warmUp = { saturation: 3, reads: 2, official: 2 } satisfies Record<Load, number>;
const sampleMs = 250;

/** The first side divided by the second, and the standard error of the mean; null with one pair. */
type Ratio = Spread & { error: number | null };

/** One slice of one side. */
export type Slice = Sent & {
  side: string;
  load: Load;
  /** Counted from 1. Two slices of one round are a pair. */
  round: number;
  /** CPU-seconds for 1,000 requests: of each service, of "all", and of the generator. */
  cost: Record<string, number>;
};

/** A number that every slice of a load has: a column of the tables. */
type Measure = {
  load: Load;
  /** "CPU-s per 1,000 requests", or a kind of request. */
  of: string;
  name: string;
  sides: Record<string, Spread>;
  /** The first side divided by the second; null with one side, or if the second is 0. */
  ratio: Ratio | null;
};

/** `people`: in the registry at the start. */
type Setup = { name: string; root: string; override: string | undefined; people: number };

type Side = Setup & {
  /** The root and its commit. */
  checkout: string;
  made: Topology;
  services: ReturnType<typeof findServices>;
  generator: Generator;
  /** People in the registry. */
  stored: number;
  /** The highest working set of each service, and of "all" at one moment, bytes. */
  peak: Map<string, number>;
};

/** The ratio of each pair, because the machine's pace changes between pairs. Null if a divisor is 0. */
export function ratiosOf(ours: readonly number[], theirs: readonly number[]): Ratio | null {
  const ratios = ours.map((value, pair) => value / (theirs[pair] ?? 0));
  const n = ratios.length;
  if (n === 0 || !ratios.every(Number.isFinite)) return null;
  const mean = ratios.reduce((sum, ratio) => sum + ratio, 0) / n;
  const squares = ratios.reduce((sum, ratio) => sum + (ratio - mean) ** 2, 0);
  return { ...spreadOf(ratios), error: n === 1 ? null : Math.sqrt(squares / (n - 1) / n) };
}

/** CPU-seconds for 1,000 requests by service, and of "all". */
export function costOf(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  requests: number,
): Record<string, number> {
  const cost: Record<string, number> = {};
  let all = 0;
  for (const [service, seconds] of after) {
    const used = seconds - (before.get(service) ?? Number.NaN);
    if (!(used >= 0)) throw new Error(`${service} restarted while it was measured`);
    cost[service] = (used / requests) * 1000;
    all += cost[service];
  }
  return { ...cost, all };
}

/** The people of bench:growth. Their apelidos begin with "1", which no payload of a load does. */
function* inhabitants(seed: number, count: number) {
  for (const person of people(seed)) {
    if (count-- === 0) return;
    yield { ...person, apelido: `1${person.apelido}`.slice(0, 32) };
  }
}

async function inhabit({ fill, copyInto, sql }: Topology, seed: number, count: number): Promise<void> {
  if (count === 0) return;
  await fill(async () => {
    await store(copyInto, inhabitants(seed, count));
    await sql("vacuum (analyze) pessoas, short_terms"); // also merges the pending list
  });
}

type Generator = ReturnType<typeof startGenerator>;

/** Starts load/cost-loads.ts as a process. `report` returns its reports in order. */
export function startGenerator(options: LoadOptions) {
  const reports: Report[] = [];
  let wake = () => {};
  const script = join(import.meta.dir, "load", "cost-loads.ts");
  const child = Bun.spawn([process.execPath, "run", script, JSON.stringify(options)], {
    stdout: "inherit",
    stderr: "inherit",
    ipc(report: Report) {
      reports.push(report);
      wake();
    },
    onExit: () => wake(),
  });
  return {
    order: (order: Order) => child.send(order),
    async report(): Promise<Report> {
      while (reports.length === 0) {
        if (child.exitCode !== null || child.signalCode !== null)
          throw new Error("the load generator has ended");
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      return reports.shift() as Report;
    },
    stop: () => child.kill(),
  };
}

function cpuSeconds({ services }: Side): Map<string, number> {
  return new Map([...services].map(([name, { groups }]) => [name, readCpuSeconds(groups)]));
}

function samplePeak({ services, peak }: Side) {
  let all = 0;
  const keep = (name: string, bytes: number) => peak.set(name, Math.max(peak.get(name) ?? 0, bytes));
  for (const [name, { groups }] of services) {
    const { workingSetBytes } = readUsage(groups);
    keep(name, workingSetBytes);
    all += workingSetBytes;
  }
  keep("all", all);
}

async function slice(
  side: Side,
  { load, seconds, round }: { load: Load; seconds: number; round: number },
  problems: string[],
): Promise<Slice> {
  const { generator, made, name } = side;
  generator.order({ prepare: load, seconds });
  await generator.report();
  const before = cpuSeconds(side);
  const sampling = setInterval(() => samplePeak(side), sampleMs);
  generator.order("go");
  await generator.report().finally(() => clearInterval(sampling));
  const after = cpuSeconds(side);
  samplePeak(side);
  const sent = (await generator.report()) as Sent;

  const requests = total(sent);
  if (requests === 0) throw new Error(`${load}: no request was sent`);
  for (const [fault, times] of Object.entries(sent.faults)) {
    problems.push(`${name}, ${load}: ${number(times)} × ${fault}`);
  }
  side.stored += sent.created;
  const count = await settledCount(made.url, 20);
  if (count !== side.stored) {
    problems.push(
      `${name}, ${load}: the count is ${number(count)}, but ${number(side.stored)} persons got 201`,
    );
    side.stored = count;
  }
  const cost = { ...costOf(before, after, requests), generator: (sent.cpuS / requests) * 1000 };
  return { ...sent, side: name, load, round, cost };
}

type Options = {
  chosen: readonly Load[];
  rounds: number;
  seconds: number;
  rate: number;
  seed: number;
};

/** Number of payloads for the open loop of one side. Each is sent once. */
function payloads({ chosen, rounds, seconds, rate }: Options): number {
  const mean = rate * (warmUp.official + (chosen.includes("official") ? rounds * seconds : 0));
  return Math.ceil(mean + 6 * Math.sqrt(mean)); // 6 standard deviations above the mean
}

async function measure(sides: readonly Side[], options: Options, problems: string[], signal: AbortSignal) {
  const slices: Slice[] = [];
  for (const side of sides) {
    console.error(`${side.name}: warming up`);
    for (const load of ["saturation", "reads", "official"] as const) {
      await slice(side, { load, seconds: warmUp[load], round: 0 }, problems);
      signal.throwIfAborted();
    }
    side.peak.clear();
  }
  for (const load of options.chosen) {
    for (let round = 1; round <= options.rounds; round++) {
      for (const side of round % 2 === 1 ? sides : sides.toReversed()) {
        const measured = await slice(side, { load, seconds: options.seconds, round }, problems);
        signal.throwIfAborted();
        slices.push(measured);
        const cost = measured.cost.all?.toFixed(3);
        console.error(`${load} ${round}/${options.rounds}, ${side.name}: ${cost} CPU-s/1,000`);
      }
    }
  }
  return slices;
}

function total({ requests }: Sent): number {
  return Object.values(requests).reduce((sum, kind) => sum + kind.requests, 0);
}

const costTitle = "CPU-s per 1,000 requests";

/** All measures, load by load, of one or two sides with these names. */
export function measuresOf(slices: readonly Slice[], sides: readonly string[]): Measure[] {
  return [...Map.groupBy(slices, ({ load }) => load)].flatMap(([load, own]) => {
    const measure = (of: string, name: string, value: (slice: Slice) => number): Measure => {
      const values = sides.map((side) =>
        own
          .filter((slice) => slice.side === side)
          .sort((a, b) => a.round - b.round)
          .map(value),
      );
      const [ours = [], theirs] = values;
      return {
        load,
        of,
        name,
        sides: Object.fromEntries(sides.map((side, index) => [side, spreadOf(values[index] ?? [])])),
        ratio: theirs ? ratiosOf(ours, theirs) : null,
      };
    };
    const { cost = {}, requests = {} } = own[0] ?? {};
    return [
      ...Object.keys(cost).map((name) => measure(costTitle, name, (slice) => slice.cost[name] ?? 0)),
      ...Object.keys(requests).flatMap((kind) => [
        measure(kind, "per s", (slice) => (slice.requests[kind]?.requests ?? 0) / slice.seconds),
        measure(kind, "failed", (slice) => slice.requests[kind]?.failed ?? 0),
        measure(kind, "p50 ms", (slice) => slice.requests[kind]?.p50 ?? 0),
        measure(kind, "p99 ms", (slice) => slice.requests[kind]?.p99 ?? 0),
      ]),
    ];
  });
}

function spreadText({ median, min, max }: Spread, digits: number): string {
  const [middle, low, high] = [median, min, max].map((value) => value.toFixed(digits));
  return min === max ? `${middle}` : `${middle} (${low}–${high})`;
}

function ratioText(ratio: Ratio | null): string {
  if (!ratio) return "-";
  const { median, min, max, error } = ratio;
  if (error === null) return `×${median.toFixed(3)}`;
  return `×${median.toFixed(3)} ±${error.toFixed(3)} (${min.toFixed(2)}–${max.toFixed(2)})`;
}

/** A heading, a line for each side, and with two sides one for their ratio. */
function rowsOf(measures: readonly Measure[], digits: (name: string) => number): string[][] {
  const [{ of, sides } = { of: "", sides: {} }] = measures;
  const names = Object.keys(sides);
  return [
    [of, ...measures.map(({ name }) => name)],
    ...names.map((side) => [
      `  ${side}`,
      ...measures.map(({ name, sides }) => spreadText(sides[side] as Spread, digits(name))),
    ]),
    ...(names.length > 1 ? [["  ratio", ...measures.map(({ ratio }) => ratioText(ratio))]] : []),
  ];
}

type Run = {
  options: Options;
  sides: readonly Pick<Side, "name" | "checkout" | "override" | "people" | "peak">[];
  slices: readonly Slice[];
  measures: readonly Measure[];
  problems: readonly string[];
};

/** One screen. */
export function render({ options, sides, slices, measures, problems }: Run): string {
  const { rounds, seconds, rate } = options;
  const lines = sides.map(
    ({ name, checkout, override, people }) =>
      `${name.padEnd(8)} ${checkout}${override ? ` with ${override}` : ""}${people > 0 ? `, ${number(people)} persons before` : ""}`,
  );
  const legend = sides.length > 1 ? "; ratio of the pairs with ± standard error" : "";
  lines.push(`${rounds} × ${seconds} s of each load: median (lowest–highest)${legend}`, "");
  for (const [load, own] of Map.groupBy(measures, (measure) => measure.load)) {
    lines.push(
      load === "official" ? `${load}, open loop, ${rate} creates/s` : `${load}, closed loop, 64 connections`,
    );
    const [costs = [], ...kinds] = Map.groupBy(own, ({ of }) => of).values();
    lines.push(...table(rowsOf(costs, () => 3)));
    lines.push(...table(kinds.flatMap((kind) => rowsOf(kind, (name) => (name.endsWith("ms") ? 2 : 0)))));
    const late = slices.flatMap((slice) => (slice.load === load && slice.late) || []);
    if (late.length > 0) {
      const [p50, p99] = (["p50", "p99"] as const).map((name) =>
        spreadOf(late.map((one) => one[name])).median.toFixed(2),
      );
      lines.push(`these latencies include the generator's delay: p50 ${p50} ms, p99 ${p99} ms`);
    }
    lines.push("");
  }
  const columns = [...(sides[0]?.peak.keys() ?? [])];
  const memory = sides.map(({ name, peak }) => {
    return [`  ${name}`, ...columns.map((column) => mebibytes(peak.get(column) ?? 0))];
  });
  lines.push(...table([["peak memory without inactive file cache, MiB", ...columns], ...memory]), "");
  const requests = slices.reduce((sum, slice) => sum + total(slice), 0);
  lines.push(
    ...(problems.length === 0
      ? [`passed: ${number(requests)} requests answered as expected, the counts are right`]
      : ["FAILED:", ...problems.slice(0, 20).map((problem) => `  ${problem}`)]),
  );
  return lines.join("\n");
}

function toJson({ options, sides, slices, measures, problems }: Run) {
  return {
    passed: problems.length === 0,
    problems,
    at: new Date().toISOString(),
    machine: describeMachine(),
    ...options,
    sides: sides.map(({ name, checkout, override, people, peak }) => ({
      name,
      checkout,
      override,
      people,
      peakWorkingSetBytes: Object.fromEntries(peak),
    })),
    measures,
    slices,
  };
}

/** The commit of a checkout, and whether its files differ from it. */
async function describeCheckout(folder: string): Promise<string> {
  const text = (await $`git -C ${folder} describe --always --dirty`.nothrow().quiet().text()).trim();
  return text === "" ? folder : `${folder} at ${text}`;
}

async function main(): Promise<void> {
  const values = readArguments(usage, {
    against: { type: "string" },
    override: { type: "string" },
    "against-override": { type: "string" },
    people: { type: "string", default: "0" },
    "against-people": { type: "string" },
    only: { type: "string" },
    rounds: { type: "string", default: "6" },
    seconds: { type: "string", default: "2.5" },
    rate: { type: "string", default: "300" },
    seed: { type: "string", default: "1" },
    json: { type: "boolean", default: false },
  });
  const chosen = loads.filter((load) => load === (values.only ?? load));
  if (chosen.length === 0) {
    throw new RangeError(`--only: expected ${loads.join(", ")}, got "${values.only}"`);
  }
  const options: Options = {
    chosen,
    rounds: wholeOf("rounds", values.rounds, 1, 100),
    seconds: numberOf("seconds", values.seconds, 1, 120),
    rate: numberOf("rate", values.rate, 1, 2000),
    seed: wholeOf("seed", values.seed, 0, 2 ** 32 - 1),
  };
  const path = async (name: string, value: string | undefined) => {
    if (value === undefined) return undefined;
    if (await Bun.file(value).exists()) return resolve(value);
    throw new RangeError(`--${name}: there is no file ${value}`);
  };
  const here = resolve(import.meta.dir, "..");
  const override = await path("override", values.override);
  const againstOverride = await path("against-override", values["against-override"]);
  const other = values.against === undefined ? here : resolve(values.against);
  if (!(await Bun.file(join(other, "docker-compose.yml")).exists())) {
    throw new RangeError(`--against: there is no docker-compose.yml in ${other}`);
  }
  const before = personsOf("people", values.people, 0, 1e7);
  const againstPeople = values["against-people"];
  const setups: Setup[] = [{ name: "here", root: here, override, people: before }];
  if ([values.against, againstOverride, againstPeople].some((value) => value !== undefined)) {
    const people = againstPeople === undefined ? before : personsOf("against-people", againstPeople, 0, 1e7);
    setups.push({ name: "against", root: other, override: againstOverride, people });
  }

  const abandoned = abortedBySignals();
  const topologies = setups.map(({ name, root, override }) =>
    // With health checks, because their cost is part of the result.
    topology(abandoned.signal, { name: `cost-${name}`, root, override }),
  );
  const sides: Side[] = [];
  const problems: string[] = [];
  try {
    console.error("starting, which takes half a minute");
    await Promise.all(topologies.map(({ up }) => up()));
    for (const [index, made] of topologies.entries()) {
      const setup = setups[index] as Setup;
      const { name, root, people } = setup;
      if (people > 0) console.error(`${name}: storing ${number(people)} persons`);
      await inhabit(made, options.seed, people);
      const { rate, seed } = options;
      const generator = startGenerator({ url: made.url, seed, rows: payloads(options), rate });
      abandoned.signal.addEventListener("abort", generator.stop);
      const checkout = await describeCheckout(root);
      const services = findServices(made.project);
      sides.push({ ...setup, checkout, made, services, generator, stored: people, peak: new Map() });
    }
    const slices = await measure(sides, options, problems, abandoned.signal);
    const measures = measuresOf(
      slices,
      setups.map(({ name }) => name),
    );
    const run: Run = { options, sides, slices, measures, problems };
    console.log(values.json ? JSON.stringify(toJson(run), null, 2) : render(run));
  } catch (error) {
    throw abandoned.signal.aborted ? abandoned.signal.reason : error;
  } finally {
    for (const { generator } of sides) generator.stop();
    await Promise.all(topologies.map(({ remove }) => remove()));
  }
  if (problems.length > 0) process.exitCode = 1;
}

if (import.meta.main) await runScript(main);
