import { describe, expect, test } from "bun:test";
import type { Usage } from "../measure/cgroups.ts";
import type { Timed } from "../measure/statistics.ts";
import type { Sample } from "../measure/usage.ts";
import { histogram, metricsOverTime, overTime, type Point, usageOverTime } from "./series.ts";

const points = (...all: Point[]) => all;

const request = (atMs: number, ms: number, more: Partial<Timed> = {}): Timed => ({
  kind: "read",
  startMs: 1000 + atMs,
  ms,
  failed: false,
  ...more,
});

describe("latencies and rates over time", () => {
  test("percentiles are in the slice of the request, rates in the slice of the answer", () => {
    const requests = [
      ...Array.from({ length: 100 }, (_, index) => request(0, index + 1)), // 1 to 100 ms, all in the first 0.25 s
      request(300, 700, { failed: true }), // answered at 1.0 s
    ];
    const { startMs, seconds, sliceS, kinds, failed } = overTime(requests);
    expect([startMs, seconds, sliceS]).toEqual([1000, 1, 0.25]);
    expect(kinds).toEqual([
      {
        kind: "read",
        p50: points([0.125, 50], [0.375, 700]),
        p95: points([0.125, 95], [0.375, 700]),
        p99: points([0.125, 99], [0.375, 700]),
        rate: points([0.125, 400], [0.375, 0], [0.625, 0], [0.875, 4]),
      },
    ]);
    expect(failed.map(([, perS]) => perS)).toEqual([0, 0, 0, 4]);
  });

  test("the last slice includes the rest, and its rate is by its own width", () => {
    const { kinds } = overTime([request(0, 0), request(500, 100)]);
    expect(kinds[0]?.rate).toEqual(points([0.125, 4], [0.425, 1 / 0.35]));
  });

  test.each([
    [10, 0.25],
    [60, 1],
    [205, 2],
    [3600, 60],
  ])("%d s in slices of %d s", (seconds, sliceS) => {
    expect(overTime([request(0, 0), request(seconds * 1000, 0)]).sliceS).toBe(sliceS);
  });

  test("rates times widths give all requests, also of more requests than fit on the stack", () => {
    const many = Array.from({ length: 300_000 }, (_, index) => request(index / 100, 1));
    const { kinds, sliceS, seconds } = overTime(many);
    const rates = kinds[0]?.rate ?? [];
    const sum = rates.reduce((total, [, perS], index) => {
      const width = index < rates.length - 1 ? sliceS : seconds - index * sliceS;
      return total + perS * width;
    }, 0);
    expect(sum).toBeCloseTo(300_000, 3);
  });

  test("kinds come in the contest's order", () => {
    const kinds = ["zebra", "search", "read", "create"].map((kind) => request(0, 1, { kind }));
    expect(overTime(kinds).kinds.map(({ kind }) => kind)).toEqual(["create", "read", "search", "zebra"]);
  });
});

test("the histogram counts a request in the last bar that begins at or below its latency", () => {
  const { fromMs, counts } = histogram([
    request(0, 0.39),
    request(0, 0.4),
    request(0, 1),
    request(0, 1.99),
    request(0, 2, { kind: "create" }),
  ]);
  expect(fromMs).toEqual([0.3, 0.4, 0.6, 0.8, 1, 2]);
  expect([...counts]).toEqual([
    ["create", [0, 0, 0, 0, 0, 1]],
    ["read", [1, 1, 0, 0, 2, 0]],
  ]);
  expect(histogram([request(0, 0), request(0, 2)]).fromMs).toEqual([0, 1, 2]);
  expect(histogram([request(0, 0)])).toEqual({ fromMs: [0], counts: new Map([["read", [1]]]) });
});

describe("samples over time", () => {
  const used = (userS: number, workingSetBytes = 1): Usage => ({
    userS,
    systemS: 1,
    throttledS: 0,
    memoryBytes: 9,
    workingSetBytes,
    peakBytes: null,
    cpuLimit: 0.5,
    memoryLimitBytes: 100,
  });

  test("CPUs between two samples, without the time before a restart", () => {
    const samples: Sample[] = [
      { atMs: 1000, services: { api: used(10, 5) } },
      { atMs: 2000, services: { api: used(10.5, 6) } },
      { atMs: 2050, services: { api: used(10.6, 6) } }, // too close for counters that move in steps
      { atMs: 3000, services: { api: used(0) } },
      { atMs: 5000, services: { api: used(1), db: used(0) } },
    ];
    const [api, db] = usageOverTime(samples, 1000);
    expect(api).toMatchObject({ name: "api", cpuLimit: 0.5, memoryLimitBytes: 100 });
    expect(api?.cpus).toEqual(points([0.5, 0.5], [3, 0.5]));
    expect(api?.bytes.slice(0, 2)).toEqual(points([0, 5], [1, 6]));
    expect(db?.cpus).toEqual([]);
  });

  test("hit ratio by service, batch size over all services", () => {
    const told = (hits: number, misses: number, statements: number, items: number) => ({
      pessoas_cache_hits_total: hits,
      pessoas_cache_misses_total: misses,
      'pessoas_batch_statements_total{kind="insert"}': statements,
      'pessoas_batch_items_total{kind="insert"}': items,
    });
    const samples: Sample[] = [
      { atMs: 0, services: {}, metrics: { api1: told(0, 0, 0, 0), api2: told(10, 10, 5, 5) } },
      { atMs: 500, services: {} },
      { atMs: 1000, services: {}, metrics: { api1: told(3, 1, 2, 10), api2: told(10, 10, 7, 15) } },
      { atMs: 2000, services: {}, metrics: { api1: told(0, 0, 0, 0), api2: told(11, 10, 7, 15) } }, // api1 restarted
    ];
    const { hitRatio, batchSize } = metricsOverTime(samples, 0);
    expect([...hitRatio]).toEqual([
      ["api1", [[0.5, 75]]],
      ["api2", [[1.5, 100]]],
    ]);
    expect([...batchSize]).toEqual([["insert", [[0.5, 5]]]]); // 20 items in 4 statements
  });
});
