import { join } from "node:path";
import { expectedFor, type Row } from "../data/contract.ts";
import { generate, randomFrom } from "../data/payloads.ts";
import { ramp } from "../load/arrivals.ts";
import { generator } from "../load/generator.ts";
import { contestUsers, searchWithoutTerm } from "../load/requests.ts";
import { faultsOf, latenciesOf } from "../load/results.ts";
import { get } from "../measure/audit.ts";
import { readLog } from "../measure/gatling.ts";
import { type Latency, round, type Timed } from "../measure/statistics.ts";
import { peakOfAll, type Sample, type ServiceUse, startSampling, sumUsage } from "../measure/usage.ts";
import type { Verdict } from "../measure/verdict.ts";
import { busySeconds, type Project, proxySeconds, within } from "./project.ts";

/** One run of the contest's load. */
export type LoadRun = {
  seconds: number;
  /** Persons stored, and the maximum for what was sent. */
  stored: number;
  maximum: number;
  /** Persons that the count lacked when the last answer was there, and seconds until it was complete. */
  late: { persons: number; seconds: number };
  failed: number;
  /** What was wrong with answers, and how often. */
  faults: Record<string, number>;
  /** Milliseconds, by kind. */
  latencies: Record<string, Latency>;
  /** Null where the cgroups cannot be read. */
  cost: Cost | null;
  requests: Timed[];
  samples: Sample[];
};
export type Cost = {
  /** All containers together. */
  cpuS: number;
  throttledS: number;
  peakBytes: number;
  services: Record<string, ServiceUse>;
  proxyS: number;
  /** CPU-seconds of what was neither the entry nor what loads it, in % of all CPUs: a busy neighbour, and the kernel. */
  othersPercent: number;
};

/** The contest's shape, every duration times `scale`: creates, searches, and searches without t. */
function usersOf(rows: readonly Row[], terms: readonly string[], scale: number) {
  // The contest's own simulation takes 201, 400 and 422 for any payload. The count says who was right.
  const anyAnswer = rows.map(({ payload }) => ({ payload, accept: [201, 400, 422] }));
  const makers = contestUsers(anyAnswer, terms, randomFrom(1), () => "");
  const phases = (...all: [from: number, to: number, seconds: number][]) => {
    let startMs = 0;
    return all.flatMap(([from, to, seconds]) => {
      const at = startMs;
      startMs += seconds * scale * 1000;
      return ramp(from, to, seconds * scale).map((ms) => at + ms);
    });
  };
  const due = {
    create: phases([2, 2, 10], [5, 5, 15], [6, 600, 180]),
    search: phases([2, 2, 25], [6, 100, 180]),
    "search without t": phases([2, 2, 25], [6, 40, 180]),
  };
  const users = Object.entries(due)
    .flatMap(([kind, times]) => times.map((ms) => ({ ms, kind: kind as keyof typeof due })))
    .sort((a, b) => a.ms - b.ms);
  return {
    arrivals: users.map(({ ms }) => ms),
    requests: users.map(({ kind }) => makers[kind]()),
    creates: due.create.length,
  };
}

/** Runs the load on an empty store, by Gatling in `gatling` or by the generator; `scale` shortens it. */
export async function runLoad(
  made: Project,
  { scale, gatling }: { scale: number; gatling: string | undefined },
  signal: AbortSignal,
): Promise<LoadRun> {
  const { name, port } = made;
  const url = await made.loadUrl();
  const samples: Sample[] = [];
  await warmUp(url, signal);
  const countBefore = await countOf(url);
  const sampling = await startSampling(name, 1000, (sample) => samples.push(sample)).catch((error: Error) => {
    console.error(`CPU and memory are not measured: ${error.message}`);
    return undefined;
  });
  const [busy, own, proxy, startMs] = [
    busySeconds(),
    process.cpuUsage(),
    await proxySeconds(port),
    performance.now(),
  ];
  const sent = await (gatling === undefined
    ? byGenerator(url, scale, signal)
    : byGatling(url, scale, gatling, signal));
  const atEnd = (await countOf(url)) - countBefore;
  const endMs = performance.now();
  await sampling?.stop();
  const services = sumUsage(samples);
  const sum = (key: "userS" | "systemS" | "throttledS") =>
    Object.values(services).reduce((all, use) => all + use[key], 0);
  const cpuS = sum("userS") + sum("systemS");
  const proxyS = (await proxySeconds(port)) - proxy;
  const { user, system } = process.cpuUsage(own);
  const others = busySeconds() - busy - cpuS - proxyS - (user + system) / 1e6 - sent.generatorS;
  const seconds = (endMs - startMs) / 1000;

  let [stored, sinceMs] = [atEnd, endMs];
  await within(120_000, signal, async () => {
    const now = (await countOf(url)) - countBefore;
    if (now !== stored) [stored, sinceMs] = [now, performance.now()];
    return now >= sent.maximum || performance.now() - sinceMs > 12_000 || undefined;
  });
  const { requests, maximum, faults, latencies } = sent;
  return {
    seconds,
    stored,
    maximum,
    faults,
    latencies,
    requests,
    samples,
    failed: requests.filter(({ failed }) => failed).length,
    late: { persons: stored - atEnd, seconds: round((sinceMs - endMs) / 1000, 1) },
    cost:
      sampling === undefined
        ? null
        : {
            cpuS,
            services,
            proxyS,
            throttledS: sum("throttledS"),
            peakBytes: peakOfAll(samples) ?? 0,
            othersPercent: Math.max(0, (100 * others) / (seconds * navigator.hardwareConcurrency)),
          },
  };
}

/** The same for each entry: two seconds of requests that store nothing, and one of rest. */
async function warmUp(url: string, signal: AbortSignal) {
  const load = generator({ url, connections: 8 });
  await load.closed({ users: 8, seconds: 2, next: () => searchWithoutTerm() }).answered;
  load.close();
  signal.throwIfAborted();
  await Bun.sleep(1000);
}

async function countOf(url: string): Promise<number> {
  const { status, body } = await get(url, "/contagem-pessoas");
  if (status < 200 || status > 299) throw new Error(`GET /contagem-pessoas answers ${status || body}`);
  return Number(body);
}

type Sent = Pick<LoadRun, "requests" | "maximum" | "faults" | "latencies"> & { generatorS: number };

async function byGenerator(url: string, scale: number, signal: AbortSignal): Promise<Sent> {
  const { rows, terms } = generate(1, 54_700, 5000);
  const { arrivals, requests, creates } = usersOf(rows, terms, scale);
  const load = generator({ url, connectionPerUser: true, timeoutMs: 60_000 });
  const stop = () => load.close();
  signal.addEventListener("abort", stop);
  await load.warm();
  let nth = 0;
  const { answered, results } = load.open({
    arrivals,
    next: () => requests[nth++] as (typeof requests)[number],
  });
  await answered;
  signal.removeEventListener("abort", stop);
  load.close();
  signal.throwIfAborted();
  const timed = results.map(({ kind, dueMs, ms, fault }): Timed => {
    return { kind, startMs: performance.timeOrigin + dueMs, ms, failed: fault !== "" };
  });
  return {
    requests: timed,
    maximum: expectedFor(rows, creates)[201],
    faults: faultsOf(results),
    latencies: latenciesOf(results),
    generatorS: 0, // in this process
  };
}

/** By run-test.sh, whose verdict and log are read. */
async function byGatling(url: string, scale: number, gatling: string, signal: AbortSignal): Promise<Sent> {
  const child = Bun.spawn(
    [join(import.meta.dir, "..", "run-test.sh"), "--not-empty", "--seconds-scale", String(scale), gatling],
    {
      env: { ...process.env, BASE_URL: url, READY_PATH: "/contagem-pessoas", COMPOSE_PROJECT_NAME: "" },
      signal,
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
    },
  );
  const [, said] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const [, folder] = /Gatling's report: (.*)\/index\.html/.exec(said) ?? [];
  if (folder === undefined) throw new Error(`run-test.sh: ${said.trim().split("\n").at(-1)}`);
  const { requests, failures } = readLog(await Bun.file(join(folder, "simulation.log")).text());
  const verdict = (await Bun.file(join(folder, "verdict.json")).json()) as Verdict;
  const { cpuTime } = child.resourceUsage() as { cpuTime: { total: bigint | number } };
  return {
    requests,
    maximum: verdict.count.maximum,
    faults: Object.fromEntries(
      failures.map(({ request, message, times }) => [`${request}: ${message}`, times]),
    ),
    latencies: verdict.requests,
    generatorS: Number(cpuTime.total) / 1e6,
  };
}
