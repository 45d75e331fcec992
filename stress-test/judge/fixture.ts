import type { Run } from "../report/charts.ts";
import { contestPage } from "../report/fixture.ts";
import type { LoadRun } from "./load.ts";
import type { Judged } from "./report.ts";
import { type Outcome, type Section, sectionOf } from "./section.ts";

/** A made-up load: `times` scales what is compared between entries. */
export function madeUpLoad(times: number): LoadRun {
  const [{ requests, samples }] = contestPage().runs as readonly [Run];
  const latency = { requests: 1000, failed: 0, p50: 1, p95: 5, p99: 10 * times, max: 20 };
  return {
    seconds: 205,
    stored: 46_123,
    maximum: 46_123,
    late: { persons: 0, seconds: 0 },
    failed: 0,
    faults: {},
    latencies: { create: latency, search: latency },
    cost: {
      services: {},
      cpuS: 50 * times,
      throttledS: 0,
      peakBytes: 200 * 2 ** 20 * times,
      proxyS: 0,
      othersPercent: 8 * times,
    },
    requests: [...requests],
    samples: [...samples],
  };
}

/** One that is right, and one that is not and could not be judged to the end. */
export function judgedEntries(): Judged[] {
  const section = (outcome: Outcome, got: string): Section =>
    sectionOf(
      "The contest's instructions.",
      [
        { rule: "dates: right", outcome: "right", request: "GET /", expected: "200", got: "200" },
        { rule: "dates: other", outcome, request: `POST ${"a".repeat(120)}`, expected: "422 or 400", got },
      ],
      got,
    );
  const right = { rules: section("lenient", "201"), durable: section("right", "0 lost of 900") };
  const wrong = { rules: section("wrong", "<script>alert(1)</script>"), race: section("wrong", "397 × 201") };
  return [
    { name: "right", sections: right, loads: [madeUpLoad(1), madeUpLoad(1.2)] },
    {
      name: "a|wrong",
      error: "container api has ended with 3",
      sections: wrong,
      loads: [{ ...madeUpLoad(2), samples: [] }, madeUpLoad(3)],
    },
  ];
}
