import { percentile, type Timed } from "../measure/statistics.ts";
import type { Metrics, Sample } from "../measure/usage.ts";

/** Value at so many seconds since the start. */
export type Point = [atS: number, value: number];

/**
 * Latencies (ms) and rates (per second) of each kind of request, at the middle of equal slices of time. A latency
 * belongs to the slice in which the request was sent, a rate to the slice of the answer.
 */
export function overTime(requests: readonly Timed[]) {
  const startMs = Math.min(...bounds(requests, ({ startMs }) => startMs));
  const endMs = Math.max(...bounds(requests, ({ startMs, ms }) => startMs + ms));
  const seconds = Math.max(0.001, (endMs - startMs) / 1000);
  const sliceS = sliceSeconds(seconds);
  const slices = Math.max(1, Math.floor(seconds / sliceS)); // the last one takes the remainder, too
  const slice = (atMs: number) => Math.min(slices - 1, Math.floor((atMs - startMs) / 1000 / sliceS));
  const width = (index: number) => (index < slices - 1 ? sliceS : seconds - index * sliceS);
  const middle = (index: number) => index * sliceS + width(index) / 2;
  const rates = (chosen: readonly Timed[]): Point[] => {
    const answered = new Array<number>(slices).fill(0);
    for (const { startMs, ms } of chosen) (answered[slice(startMs + ms)] as number)++;
    return answered.map((count, index) => [middle(index), count / width(index)]);
  };

  const kinds = Map.groupBy(requests, ({ kind }) => kind);
  return {
    startMs,
    seconds,
    sliceS,
    failed: rates(requests.filter(({ failed }) => failed)),
    kinds: [...kinds].sort(byKind).map(([kind, own]) => {
      const sent = Map.groupBy(own, ({ startMs }) => slice(startMs));
      const sorted = [...sent]
        .sort(([a], [b]) => a - b)
        .map(([index, some]) => ({ atS: middle(index), ms: some.map(({ ms }) => ms).sort((a, b) => a - b) }));
      const line = (p: number) => sorted.map(({ atS, ms }): Point => [atS, percentile(ms, p)]);
      return { kind, p50: line(50), p95: line(95), p99: line(99), rate: rates(own) };
    }),
  };
}

/** Minimum and maximum. Math.min(...values) overflows the stack with 100,000 values. */
export function bounds<T>(items: readonly T[], value: (item: T) => number): [min: number, max: number] {
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const item of items) {
    min = Math.min(min, value(item));
    max = Math.max(max, value(item));
  }
  return [min, max];
}

/** A round number of seconds that gives at most 110 slices, so that each slice has some requests. */
function sliceSeconds(seconds: number): number {
  const round = [0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
  return round.find((width) => seconds / width <= 110) ?? seconds / 100;
}

/** Requests of each kind by latency: bin i counts those from fromMs[i] to below fromMs[i + 1]. */
export function histogram(requests: readonly Timed[]): { fromMs: number[]; counts: Map<string, number[]> } {
  const edges = [0];
  // Gatling measures whole milliseconds, so bins below 1 ms would leave gaps.
  const whole = requests.every(({ ms }) => Number.isInteger(ms));
  for (let decade = whole ? 1 : 0.1; decade < 1e6; decade *= 10) {
    for (const step of [1, 2, 3, 4, 6, 8]) edges.push(Number((step * decade).toPrecision(1)));
  }
  const indexOf = (ms: number) => edges.findLastIndex((edge) => edge <= ms);
  const [fastest, slowest] = bounds(requests, ({ ms }) => ms);
  const [first, last] = [indexOf(fastest), indexOf(slowest)];
  const counts = new Map<string, number[]>();
  for (const [kind, own] of [...Map.groupBy(requests, (request) => request.kind)].sort(byKind)) {
    const bins = new Array<number>(last - first + 1).fill(0);
    for (const { ms } of own) (bins[indexOf(ms) - first] as number)++;
    counts.set(kind, bins);
  }
  return { fromMs: edges.slice(first, last + 1), counts };
}

/** CPUs in use between two samples, and the working set in bytes, of each service. */
export function usageOverTime(samples: readonly Sample[], startMs: number) {
  const services = new Set(samples.flatMap((sample) => Object.keys(sample.services)));
  return [...services].sort().map((name) => {
    const own = samples.flatMap(({ atMs, services }) => {
      const use = services[name];
      return use ? [{ atMs, ...use }] : [];
    });
    const cpus = own.slice(1).flatMap((now, index): Point[] => {
      const before = own[index] as typeof now;
      const usedS = now.userS + now.systemS - before.userS - before.systemS;
      const tookS = (now.atMs - before.atMs) / 1000;
      // The counter falls when the container restarts, and it grows in steps of 10 ms, too coarse for close samples.
      if (usedS < 0 || tookS < 0.2) return [];
      return [[((now.atMs + before.atMs) / 2 - startMs) / 1000, usedS / tookS]];
    });
    return {
      name,
      cpuLimit: own[0]?.cpuLimit ?? null,
      memoryLimitBytes: own[0]?.memoryLimitBytes ?? null,
      cpus,
      bytes: own.map(({ atMs, workingSetBytes }): Point => [(atMs - startMs) / 1000, workingSetBytes]),
    };
  });
}

/** Reads answered from the cache, in percent by service, and requests per statement by kind over all services. */
export function metricsOverTime(samples: readonly Sample[], startMs: number) {
  const readings = samples.filter((sample) => sample.metrics);
  const hitRatio = new Map<string, Point[]>();
  const batchSize = new Map<string, Point[]>();
  const add = (to: Map<string, Point[]>, name: string, point: Point) =>
    to.set(name, [...(to.get(name) ?? []), point]);
  readings.slice(1).forEach((now, index) => {
    const before = readings[index] as Sample;
    const atS = ((now.atMs + before.atMs) / 2 - startMs) / 1000;
    const items = new Map<string, { statements: number; items: number }>();
    for (const [service, metrics] of Object.entries(now.metrics ?? {})) {
      const earlier = before.metrics?.[service];
      if (!earlier) continue;
      const grew = (name: string) => (metrics[name] ?? 0) - (earlier[name] ?? 0);
      const [hits, misses] = [grew("pessoas_cache_hits_total"), grew("pessoas_cache_misses_total")];
      if (hits < 0 || misses < 0) continue; // the instance restarted
      if (hits + misses > 0) add(hitRatio, service, [atS, (100 * hits) / (hits + misses)]);
      for (const kind of groupKinds(metrics)) {
        const sum = items.get(kind) ?? { statements: 0, items: 0 };
        sum.statements += grew(`pessoas_batch_statements_total{kind="${kind}"}`);
        sum.items += grew(`pessoas_batch_items_total{kind="${kind}"}`);
        items.set(kind, sum);
      }
    }
    for (const [kind, sum] of items) {
      if (sum.statements > 0) add(batchSize, kind, [atS, sum.items / sum.statements]);
    }
  });
  return { readings: readings.length, hitRatio, batchSize };
}

function groupKinds(metrics: Metrics): string[] {
  return Object.keys(metrics).flatMap(
    (name) => /^pessoas_batch_items_total\{kind="(\w+)"\}$/.exec(name)?.[1] ?? [],
  );
}

const kindOrder = ["create", "insert", "read", "get", "find", "search", "search without t", "invalid"];
export function byKind([a]: [string, unknown], [b]: [string, unknown]): number {
  const rank = (kind: string) => (kindOrder.includes(kind) ? kindOrder.indexOf(kind) : kindOrder.length);
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}
