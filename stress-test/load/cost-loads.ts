// Runs as a separate process: sends the loads of cost.ts, and reports the results over IPC.
import { readPositionals } from "../../tools/arguments.ts";
import { generate, randomFrom } from "../data/payloads.ts";
import { expectedFor } from "../data/reference-contract.ts";
import { type Latency, percentile } from "../measure/statistics.ts";
import { poisson } from "./arrivals.ts";
import { type Generator, generator, type Run } from "./generator.ts";
import type { Answer, Request } from "./http.ts";
import { contestShares, contestUsers, create, locationOf, mix, persons, read } from "./requests.ts";
import { faultsOf, latenciesOf } from "./results.ts";

export const loads = ["official", "saturation", "reads"] as const;
export type Load = (typeof loads)[number];

/** The result of one slice. */
export type Sent = {
  /** From the first request to the last answer. */
  seconds: number;
  /** CPU-seconds of this process meanwhile. */
  cpuS: number;
  /** Milliseconds, by kind of request. */
  requests: Record<string, Latency>;
  /** Number of 201s. */
  created: number;
  /** The number of each fault of answers. */
  faults: Record<string, number>;
  /** Milliseconds by which the open loop sent requests later than due. The latencies include them. */
  late: { p50: number; p99: number } | null;
};

/** A message to this process: first prepare a slice, then go. */
export type Order = { prepare: Load; seconds: number } | "go";
/** In this order: the slice is prepared; the last answer has come, so CPU time can be read; the result. */
export type Report = "ready" | "ended" | Sent;

export type LoadOptions = {
  url: string;
  seed: number;
  /** The number of payloads for all slices of the open loop. */
  rows: number;
  /** Users a second that create, in the open loop. */
  rate: number;
};

const connections = 64;
const shapes = 10_000; // distinct persons in the closed loop, not counting the apelido
const newest = 1000; // persons that are read repeatedly: they fit into the cache of an instance
// Reads are left out, because each follows its create.
const { read: _, ...shares } = contestShares;
const usersPerCreate = Object.values(shares).reduce((sum, share) => sum + share, 0) / shares.create;

type Slice = {
  load: Generator;
  start(): Run;
  /** The right number of 201s, if it is known. */
  expected?: number;
};

/** The loads. They share the payloads, each sent once, and the created persons, which `reads` reads. */
function slices({
  url,
  seed,
  rows: count,
  rate,
}: LoadOptions): Record<Load, (seconds: number) => Promise<Slice>> {
  const { rows, terms } = generate(seed, count, 5000);
  const person = persons((seed + 1) % 2 ** 32, shapes, "0");
  const random = randomFrom(seed);
  const locations: string[] = [];
  let sent = 0;
  const created = (answer: Answer) => {
    locations.push(locationOf(answer));
    return "";
  };
  const users = contestUsers(rows, terms, random, created);

  async function closed(seconds: number, next: () => Request): Promise<Slice> {
    const load = generator({ url, connections });
    await load.warm(connections);
    return { load, start: () => load.closed({ users: connections, seconds, next }) };
  }
  return {
    async official(seconds) {
      const first = expectedFor(rows, sent)[201];
      const arrivals = poisson(random, rate * usersPerCreate, seconds);
      const kind = mix(shares);
      const kinds = arrivals.map(() => kind());
      const creates = kinds.filter((kind) => kind === "create").length;
      if (sent + creates > rows.length) throw new Error("there are not enough payloads");
      const requests = kinds.map((kind) => users[kind]());
      let nth = 0;
      const load = generator({ url, connectionPerUser: true });
      await load.warm();
      sent += creates;
      return {
        load,
        start: () => load.open({ arrivals, next: () => requests[nth++] as Request }),
        // Known, because each valid apelido gets one 201 in any order.
        expected: expectedFor(rows, sent)[201] - first,
      };
    },
    saturation: (seconds) => closed(seconds, () => create(JSON.stringify(person()), [201], created)),
    async reads(seconds) {
      const requests = locations.slice(-newest).map((location) => read(location));
      if (requests.length === 0) throw new Error("there is no created person to read");
      let asked = 0;
      return await closed(seconds, () => requests[asked++ % requests.length] as Request);
    },
  };
}

async function run({ load, start, expected }: Slice): Promise<Sent> {
  const [startMs, before] = [performance.now(), process.cpuUsage()];
  const { answered, results, lateMs } = start();
  await answered;
  const { user, system } = process.cpuUsage(before);
  const seconds = (performance.now() - startMs) / 1000;
  tell("ended");
  load.close();
  const faults = faultsOf(results);
  const created = results.filter(({ status }) => status === 201).length;
  if (expected !== undefined && created !== expected) {
    faults[`create: ${created} × 201, expected ${expected}`] = 1;
  }
  const late = lateMs.toSorted((a, b) => a - b);
  return {
    seconds,
    cpuS: (user + system) / 1e6,
    requests: latenciesOf(results),
    created,
    faults,
    late: late.length === 0 ? null : { p50: percentile(late, 50), p99: percentile(late, 99) },
  };
}

function tell(report: Report) {
  process.send?.(report);
}

if (import.meta.main) {
  const [options = ""] = readPositionals("Usage: cost-loads.ts OPTIONS   cost.ts starts it, with JSON", 1);
  if (!options.startsWith("{")) {
    console.error("OPTIONS: expected a JSON object; see --help");
    process.exit(2);
  }
  const prepare = slices(JSON.parse(options) as LoadOptions);
  let slice: Slice | undefined;
  process.on("message", async (order: Order) => {
    if (order !== "go") {
      slice = await prepare[order.prepare](order.seconds);
      tell("ready");
    } else if (slice) tell(await run(slice));
  });
  process.on("disconnect", () => process.exit());
}
