/** One request: when it was sent (ms since 1970), its latency, and whether its answer was wrong or missing. */
export type Timed = { kind: string; startMs: number; ms: number; failed: boolean };

/** In ms. Percentiles are by nearest rank over all answers, with failed ones. */
export type Latency = {
  requests: number;
  failed: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
};

/** The percentile by nearest rank. `sorted` is ascending and not empty; `p` from 0 to 100. */
export function percentile(sorted: readonly number[], p: number): number {
  const rank = Math.max(1, Math.ceil((p / 100) * sorted.length));
  const value = sorted[rank - 1];
  if (value === undefined) throw new RangeError(`no value at rank ${rank} of ${sorted.length}`);
  return value;
}

/** `requests`: at least one. */
export function summarise(requests: readonly Pick<Timed, "ms" | "failed">[]): Latency {
  const sorted = requests.map(({ ms }) => ms).sort((a, b) => a - b);
  const [p50, p95, p99] = [percentile(sorted, 50), percentile(sorted, 95), percentile(sorted, 99)];
  const failed = requests.filter((request) => request.failed).length;
  return { requests: sorted.length, failed, p50, p95, p99, max: percentile(sorted, 100) };
}

/** By kind of request, in alphabetical order. */
export function summariseKinds(requests: readonly Pick<Timed, "kind" | "ms" | "failed">[]) {
  const kinds = [...Map.groupBy(requests, ({ kind }) => kind)].sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(kinds.map(([kind, own]) => [kind, summarise(own)]));
}

export type Spread = { median: number; min: number; max: number };

/** Median, minimum and maximum. Throws a RangeError without values. */
export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const [min, max] = [sorted[0], sorted.at(-1)];
  if (min === undefined || max === undefined) throw new RangeError("values: expected at least one");
  const middle = (sorted.length - 1) / 2;
  const at = (index: number) => sorted[index] as number;
  return { median: (at(Math.floor(middle)) + at(Math.ceil(middle))) / 2, min, max };
}

/** `value` with at most `digits` decimals. */
export function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
