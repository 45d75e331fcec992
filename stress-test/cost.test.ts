import { expect, test } from "bun:test";
import { costOf, measuresOf, ratiosOf, render, type Slice } from "./cost.ts";
import { spreadOf } from "./measure/statistics.ts";

test("the median is the middle value, or the mean of the two middle ones", () => {
  expect(spreadOf([3, 1, 10])).toEqual({ median: 3, min: 1, max: 10 });
  expect(spreadOf([4, 1, 10, 2])).toEqual({ median: 3, min: 1, max: 10 });
  expect(() => spreadOf([])).toThrow(RangeError);
});

test("ratios are of pairs, so a machine that gets slower for both sides changes nothing", () => {
  expect(ratiosOf([1, 2, 4], [2, 4, 8])).toEqual({ median: 0.5, min: 0.5, max: 0.5, error: 0 });
  expect(ratiosOf([1, 6], [2, 4])).toEqual({ median: 1, min: 0.5, max: 1.5, error: 0.5 });
  expect(ratiosOf([1], [2])).toEqual({ median: 0.5, min: 0.5, max: 0.5, error: null });
  expect(ratiosOf([0, 1], [0, 1])).toBeNull();
  expect(ratiosOf([1, 1], [1])).toBeNull();
  expect(ratiosOf([], [])).toBeNull();
});

test("the cost is the difference for 1,000 requests; a counter that restarted is an error", () => {
  const before = new Map([
    ["api1", 10],
    ["db", 5],
  ]);
  const after = new Map([
    ["api1", 11],
    ["db", 5.5],
  ]);
  expect(costOf(before, after, 2000)).toEqual({ api1: 0.5, db: 0.25, all: 0.75 });
  expect(() => costOf(after, before, 2000)).toThrow("api1 restarted");
  expect(() => costOf(new Map(), after, 2000)).toThrow("api1 restarted");
});

const slice = (side: string, round: number, cost: number, p50: number): Slice => ({
  side,
  round,
  load: "reads",
  seconds: 2,
  cpuS: 1,
  created: 0,
  faults: {},
  late: null,
  requests: { read: { requests: 3000, failed: 0, p50, p95: 2, p99: 3, max: 4 } },
  cost: { api1: cost / 2, db: cost / 2, all: cost, generator: 1 / 3 },
});
// In the order in which they are measured.
const slices = [
  slice("here", 1, 1, 1),
  slice("against", 1, 2, 2),
  slice("against", 2, 4, 1),
  slice("here", 2, 3, 1),
];
const named = (sides: string[]) =>
  new Map(measuresOf(slices, sides).map((measure) => [`${measure.of}: ${measure.name}`, measure]));

test("two sides: every measure of both sides, and the ratios of their pairs", () => {
  const measures = named(["here", "against"]);
  expect(measures.get("CPU-s per 1,000 requests: all")).toEqual({
    load: "reads",
    of: "CPU-s per 1,000 requests",
    name: "all",
    sides: { here: { median: 2, min: 1, max: 3 }, against: { median: 3, min: 2, max: 4 } },
    ratio: { median: 0.625, min: 0.5, max: 0.75, error: 0.125 },
  });
  expect(measures.get("read: p50 ms")?.ratio).toEqual({ median: 0.75, min: 0.5, max: 1, error: 0.25 });
  expect(measures.get("read: per s")?.sides.here?.median).toBe(1500);
  expect(measures.get("read: failed")?.ratio).toBeNull();
});

test("one side: no ratio", () => {
  for (const { ratio, sides } of named(["here"]).values()) {
    expect([ratio, Object.keys(sides)]).toEqual([null, ["here"]]);
  }
});

const run = (sides: string[], problems: string[]) =>
  render({
    options: { chosen: ["reads"], rounds: 2, seconds: 2, rate: 300, seed: 1 },
    sides: sides.map((name) => ({
      name,
      checkout: "/src at abc",
      override: undefined,
      people: name === "here" ? 10_000 : 0,
      peak: new Map([
        ["api1", 2 ** 20],
        ["db", 2 ** 21],
        ["all", 3 * 2 ** 20],
      ]),
    })),
    slices,
    measures: measuresOf(slices, sides),
    problems,
  });

test("the output has costs, ratios, memory and the outcome", () => {
  const text = run(["here", "against"], []);
  expect(text).toStartWith("here     /src at abc, 10,000 persons before\nagainst  /src at abc\n");
  expect(text).toMatch(/^ {2}here .* 2\.000 \(1\.000–3\.000\) +0\.333$/m);
  expect(text).toMatch(/^ {2}ratio .*×0\.625 ±0\.125 \(0\.50–0\.75\)/m);
  expect(text).toMatch(/^ {2}against +1\.0 +2\.0 +3\.0$/m);
  expect(text).toContain("passed: 12,000 requests");
  expect(run(["here"], ["here, reads: 1 × read: expected 200, got 503"])).toMatch(
    /FAILED:\n {2}here, reads: 1 × read/,
  );
  expect(run(["here"], [])).not.toContain("  ratio");
});
