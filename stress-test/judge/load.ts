import { cpus } from "node:os";
import { generate, randomFrom } from "../data/payloads.ts";
import { expectedFor } from "../data/reference-contract.ts";
import type { Options } from "../judge.ts";
import { contestArrivals } from "../load/arrivals.ts";
import { generator } from "../load/generator.ts";
import { contestUsers, searchWithoutTerm } from "../load/requests.ts";
import { faultsOf } from "../load/results.ts";
import { mebibytes, number } from "../measure/format.ts";
import { type ContestLoad, type LoadResult, runGatling } from "../measure/gatling.ts";
import { busySeconds, proxySeconds } from "../measure/machine.ts";
import { round, spreadOf, summariseKinds } from "../measure/statistics.ts";
import { peakOfAll, type Sample, type ServiceUse, startSampling, sumUsage } from "../measure/usage.ts";
import type { Project } from "./project.ts";
import { type Evidence, type Section, sectionOf } from "./section.ts";

// The contest's own simulation takes these for any payload. The count says who was right.
const accept = [201, 400, 422];

/** One run of the contest's load. */
export type LoadRun = Awaited<ReturnType<typeof runLoad>>;

/** Runs the contest's load on an empty store, by Gatling or by the generator. */
export async function runLoad(made: Project, { short, gatling, port }: Options) {
  const { signal } = made;
  const scale = short ? 45 / 205 : 1;
  const { rows, terms } = generate(1, 54_700, 5000);
  const accepted = rows.map(({ payload }) => ({ payload, accept }));
  const load = { url: await made.loadUrl(), rows: accepted, terms, scale, signal };
  await warmUp(load.url);
  const before = await made.count();
  const samples: Sample[] = [];
  const sampling = await startSampling(made.name, 1000, (sample) => samples.push(sample)).catch(
    ({ message }: Error) => console.error(`CPU and memory are not measured: ${message}`),
  );
  const [busyS, proxyS, startMs] = [busySeconds(), await proxySeconds(port), performance.now()];
  const { requests, faults, cpuS } = await (gatling ? runGatling(gatling, load) : runGenerator(load));
  const seconds = (performance.now() - startMs) / 1000;
  const used = { all: busySeconds() - busyS, proxy: (await proxySeconds(port)) - proxyS };
  const atEnd = await made.count();
  await sampling?.stop();

  const maximum = expectedFor(rows, requests.filter(({ kind }) => kind === "create").length)[201];
  const { count, ms } = await made.counted(before + maximum);
  const services = sumUsage(samples);
  const entryS = sumOf(services, "userS") + sumOf(services, "systemS");
  const othersS = Math.max(0, used.all - used.proxy - entryS - cpuS);
  return {
    seconds,
    stored: count - before,
    maximum,
    /** Persons that the count lacked when the last answer was there, and seconds until it was complete. */
    late: { persons: count - atEnd, seconds: round(ms / 1000, 1) },
    failed: requests.filter(({ failed }) => failed).length,
    faults,
    latencies: summariseKinds(requests),
    /** Null where the cgroups cannot be read. */
    cost: sampling
      ? {
          services,
          cpuS: entryS,
          throttledS: sumOf(services, "throttledS"),
          peakBytes: peakOfAll(samples) ?? 0,
          proxyS: used.proxy,
          /** Of all CPUs, what neither the entry nor its load used: a busy neighbour, and the kernel. */
          othersPercent: (100 * othersS) / (seconds * cpus().length),
        }
      : null,
    requests,
    samples,
  };
}

/** A limit that is missing is infinite. */
function sumOf(services: Record<string, ServiceUse>, key: keyof ServiceUse): number {
  return Object.values(services).reduce((sum, use) => sum + (use[key] ?? Number.POSITIVE_INFINITY), 0);
}

/** The same for each entry: two seconds of requests that store nothing, and one of rest. */
async function warmUp(url: string): Promise<void> {
  const load = generator({ url, connections: 8 });
  await load.closed({ users: 8, seconds: 2, next: () => searchWithoutTerm() }).answered;
  load.close();
  await Bun.sleep(1000);
}

async function runGenerator({ url, rows, terms, scale, signal }: ContestLoad): Promise<LoadResult> {
  const users = contestUsers(rows, terms, randomFrom(1), () => "");
  const load = generator({ url, connectionPerUser: true, timeoutMs: 60_000 });
  signal.addEventListener("abort", load.close);
  await load.warm();
  const before = process.cpuUsage();
  const arrivals = contestArrivals(scale);
  const kinds = arrivals.map(({ kind }) => kind).values();
  const { answered, results } = load.open({
    arrivals: arrivals.map(({ ms }) => ms),
    next: () => users[kinds.next().value as keyof typeof users](),
  });
  await answered;
  const { user, system } = process.cpuUsage(before);
  signal.removeEventListener("abort", load.close);
  load.close();
  signal.throwIfAborted();
  const requests = results.map(({ kind, dueMs, ms, fault }) => {
    return { kind, startMs: performance.timeOrigin + dueMs, ms, failed: fault !== "" };
  });
  return { requests, faults: faultsOf(results), cpuS: (user + system) / 1e6 };
}

/** Whether all persons are stored, and no request failed. */
export function scoreOf(runs: readonly LoadRun[], rule: string): Section {
  const evidence = runs.map(({ stored, maximum, failed, requests, faults, late }, nth): Evidence => {
    const reasons = Object.entries(faults).map(([fault, times]) => `${number(times)} × ${fault}`);
    if (late.persons > 0) reasons.unshift(`${number(late.persons)} counted ${late.seconds} s late`);
    return {
      rule: `round ${nth + 1}`,
      outcome: stored === maximum && failed === 0 ? "right" : "wrong",
      request: `${number(requests.length)} requests`,
      expected: `${number(maximum)} persons, nothing failed`,
      got: [`${number(stored)} persons, ${number(failed)} failed`, ...reasons.slice(0, 5)].join("; "),
    };
  });
  const share = spreadOf(runs.map(({ stored, maximum }) => (100 * stored) / maximum)).median;
  const failed = spreadOf(runs.map(({ failed }) => failed)).median;
  return sectionOf(rule, evidence, `${share.toFixed(1)} %, ${number(failed)} failed`);
}

/** Whether the limits are the contest's. */
export function limitsOf({ cost }: LoadRun): Section {
  const rule = "All containers together may use 1.5 CPUs and 3 GB.";
  if (!cost) return sectionOf(rule, [], "not measured");
  const [cpus, bytes] = [sumOf(cost.services, "cpuLimit"), sumOf(cost.services, "memoryLimitBytes")];
  const outcome = cpus <= 1.5 + 1e-6 && bytes <= 3 * 2 ** 30 ? "right" : "wrong";
  const unlimited = Object.entries(cost.services)
    .filter(([, use]) => use.cpuLimit === null || use.memoryLimitBytes === null)
    .map(([name]) => name);
  const sums = `${cpus.toFixed(2)} CPUs, ${mebibytes(bytes)} MiB`;
  const got = unlimited.length > 0 ? `none for ${unlimited.join(", ")}` : sums;
  const expected = "1.5 CPUs, 3072.0 MiB";
  return sectionOf(rule, [{ rule: "limits", outcome, request: "", expected, got }], got);
}
