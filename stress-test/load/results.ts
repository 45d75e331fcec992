import { type Latency, percentile, summariseKinds } from "../measure/statistics.ts";

/** The result of one request. Times in ms of performance.now(). */
export type Result = {
  kind: string;
  /** When the request was due. */
  dueMs: number;
  /** From `dueMs` to the end of the answer, or until the request was given up. */
  ms: number;
  /** 0: no answer. */
  status: number;
  /** "" if the answer was as expected. */
  fault: string;
};

/** Milliseconds, by kind of request in alphabetical order. */
export function latenciesOf(results: readonly Result[]): Record<string, Latency> {
  return summariseKinds(results.map(({ kind, ms, fault }) => ({ kind, ms, failed: fault !== "" })));
}

/** The percentile by nearest rank in whole ms; Infinity without results. */
export function latencyAt(p: number, results: readonly Result[]): number {
  const sorted = results.map(({ ms }) => ms).sort((a, b) => a - b);
  return sorted.length === 0 ? Number.POSITIVE_INFINITY : Math.round(percentile(sorted, p));
}

/** The number of each fault. */
export function faultsOf(results: readonly Result[]): Record<string, number> {
  const faults: Record<string, number> = {};
  for (const { kind, fault } of results) {
    if (fault !== "") faults[`${kind}: ${fault}`] = (faults[`${kind}: ${fault}`] ?? 0) + 1;
  }
  return faults;
}
