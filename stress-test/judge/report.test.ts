import { expect, test } from "bun:test";
import { judgedEntries, madeUpLoad } from "./fixture.ts";
import { limitsOf, scoreOf } from "./load.ts";
import { headingsOf, renderMarkdown } from "./report.ts";

test("the table: verdicts, medians with their range, ratios round by round, neighbours, errors", () => {
  expect(renderMarkdown(judgedEntries()).split("\n")).toEqual([
    "|  | right | a\\|wrong |",
    "| --- | --- | --- |",
    "| Rules | ✓ 201 | ✗ <script>alert(1)</script> |",
    "| One nickname, 50 times at once | – | ✗ 397 × 201 |",
    "| 201s lost by kill -9 (application · database · everything) | ✓ 0 lost of 900 | – |",
    "| create p99, ms | 11 (10 to 12) | 25 (20 to 30) ×2.25 |",
    "| search p99, ms | 11 (10 to 12) | 25 (20 to 30) ×2.25 |",
    "| persons counted late | 0 | 0 |",
    "| CPU-seconds | 55.0 (50.0 to 60.0) | 125.0 (100.0 to 150.0) ×2.25 |",
    "| seconds throttled | 0.0 | 0.0 |",
    "| peak memory, MiB | 220.0 (200.0 to 240.0) | 500.0 (400.0 to 600.0) ×2.25 |",
    "| CPU-seconds of docker-proxy | 0.0 | 0.0 |",
    "| used by others, % of the machine | 9 (8 to 10) | 20 (16 to 24) (busy neighbour) |",
    "",
    "a|wrong: container api has ended with 3",
  ]);
});

test("entries in folders of the same name get different headings", () => {
  const headings = (...folders: string[]) => headingsOf(folders);
  expect(headings("/a/rinha", "/b/rinha-go")).toEqual(["rinha", "rinha-go"]);
  expect(headings("/a/rinha", "/b/rinha", "/b/other")).toEqual(["a/rinha", "b/rinha", "other"]);
  expect(headings("/a/x/rinha", "/b/x/rinha", "/c/rinha")).toEqual(["a/x/rinha", "b/x/rinha", "c/rinha"]);
  expect(headings("/rinha", "/a/rinha", "/a/a/rinha")).toEqual(["/rinha", "/a/rinha", "a/a/rinha"]);
  expect(headings("/a/rinha", "/a/rinha", "/b/rinha")).toEqual(["a/rinha", "a/rinha (2)", "b/rinha"]);
});

test("the score is right when all persons are stored and no request failed", () => {
  const run = madeUpLoad(1);
  const verdicts = [
    [run],
    [run, { ...run, stored: run.maximum - 1 }],
    [{ ...run, stored: run.maximum + 1 }],
    [{ ...run, failed: 1, faults: { "create: expected 201, got 500": 1 } }],
    [{ ...run, late: { persons: 7, seconds: 9.5 } }],
  ].map((runs) => scoreOf(runs, ""));
  expect(verdicts.map(({ verdict }) => verdict)).toEqual(["right", "wrong", "wrong", "wrong", "right"]);
  expect(verdicts[3]?.figure).toBe("100.0 %, 1 failed");
  expect(verdicts[3]?.evidence[0]?.got).toContain("1 × create: expected 201, got 500");
  expect(verdicts[4]?.evidence[0]?.got).toContain("7 counted 9.5 s late");
});

test("the limits are right up to 1.5 CPUs and 3 GB, and where each container has some", () => {
  const { cost, ...run } = madeUpLoad(1);
  const limits = (cpuLimit: number | null, memoryLimitBytes: number | null) => {
    const use = { userS: 0, systemS: 0, throttledS: 0, peakBytes: 0, peakWorkingSetBytes: 0, restarts: 0 };
    const services = {
      api: { ...use, cpuLimit, memoryLimitBytes },
      db: { ...use, cpuLimit: 1, memoryLimitBytes: 2 ** 31 },
    };
    const { verdict, figure } = limitsOf({ ...run, cost: cost && { ...cost, services } });
    return [verdict, figure];
  };
  expect(limits(0.5, 2 ** 30)).toEqual(["right", "1.50 CPUs, 3072.0 MiB"]);
  expect(limits(0.6, 2 ** 30)).toEqual(["wrong", "1.60 CPUs, 3072.0 MiB"]);
  expect(limits(0.5, 2 ** 30 + 2 ** 20)).toEqual(["wrong", "1.50 CPUs, 3073.0 MiB"]);
  expect(limits(null, 2 ** 30)).toEqual(["wrong", "none for api"]);
  expect(limitsOf({ ...run, cost: null }).verdict).toBe("not judged");
});
