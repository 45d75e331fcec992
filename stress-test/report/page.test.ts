import { describe, expect, test } from "bun:test";
import type { Timed } from "../measure/statistics.ts";
import type { Sample } from "../measure/usage.ts";
import { chartsOf } from "./charts.ts";
import { contestPage } from "./fixture.ts";
import { type Page, renderFiles } from "./page.ts";

describe("files", () => {
  const page = contestPage();
  const [run] = page.runs as [Page["runs"][number]];

  test("a page and an SVG file of each chart, which fetch nothing and have no placeholder of a colour", () => {
    const files = renderFiles(page);
    expect(Object.keys(files).sort()).toEqual(
      ["batches", "cache", "cpu", "histogram", "latency", "memory", "throughput"]
        .map((id) => `${id}.svg`)
        .toSpliced(6, 0, "report.html"),
    );
    for (const text of Object.values(files)) {
      const addresses = text.match(/[a-z]+:\/\/[^"' )]+/g) ?? [];
      expect(addresses.filter((address) => !address.startsWith("http://www.w3.org/"))).toEqual([]);
      expect(text).not.toMatch(/#fe00|<script|NaN|undefined/);
    }
  });

  test("the same run gives the same bytes", () => {
    const plain = (text = "") => text.replaceAll(/zr\d+-/g, "");
    expect(plain(renderFiles(page)["report.html"])).toBe(plain(renderFiles(contestPage())["report.html"]));
  });

  test("several runs: the page begins with a table of all runs, and each row links to its run", () => {
    const few = (kind: string) =>
      Array.from({ length: 20 }, (_, i): Timed => ({ kind, startMs: i, ms: i + 1, failed: false }));
    const runs = [
      { ...run, title: "create", requests: few("create"), seconds: 2 },
      { ...run, title: "a <mix>", passed: false, requests: [...few("read"), ...few("create")], seconds: 2 },
      { ...run, title: "nothing", requests: [] },
    ];
    const text = renderFiles({ ...page, runs })["report.html"] as string;
    const [before = "", ...sections] = text.split("<section");
    const rows = [...before.matchAll(/<tr>(.*?)<\/tr>/g)].map(([, row = ""]) =>
      [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/g)].map(([, cell]) => cell),
    );
    const numbers = ["10", "20", "0", "10", "19", "20", "20"];
    const link = (id: string, name: string) => `<a href="#${id}">${name}</a>`;
    expect(rows).toEqual([
      ["", "result", "per s", "requests", "failed", "p50", "p95", "p99", "max"],
      [link("create", "create"), "passed", ...numbers],
      [link("a-mix-", "a &lt;mix&gt;: create"), "failed", ...numbers],
      [link("a-mix-", "a &lt;mix&gt;: read"), "failed", ...numbers],
      [link("nothing", "nothing"), "passed", ...Array<string>(7).fill("–")],
    ]);
    expect(sections.map((section) => /^ id="([^"]+)"/.exec(section)?.[1])).toEqual([
      "create",
      "a-mix-",
      "nothing",
    ]);
    expect(before.match(/<table/g)).toHaveLength(1);
    expect(renderFiles(page)["report.html"]).not.toContain("All scenarios");
  });

  test("several runs: each has its own charts", () => {
    const runs = ["create", "search without t"].map((title) => ({ ...run, title, samples: [] }));
    const pictures = ["create", "search-without-t"].flatMap((run) =>
      ["histogram", "latency", "throughput"].map((id) => `${run}-${id}.svg`),
    );
    expect(Object.keys(renderFiles({ ...page, runs })).sort()).toEqual([...pictures, "report.html"].sort());
  });

  test.each<[string, Sample[], string[]]>([
    ["no samples", [], ["CPU and memory", "Cache hit ratio", "Batch sizes"]],
    ["usage only", run.samples.map(({ metrics, ...sample }) => sample), ["Cache hit ratio", "Batch sizes"]],
    ["everything", [...run.samples], []],
  ])("%s: the page names what is missing", (_, samples, missing) => {
    const charts = chartsOf({ ...run, samples });
    expect(charts.flatMap((chart) => ("missing" in chart ? [chart.title] : []))).toEqual(missing);
  });
});
