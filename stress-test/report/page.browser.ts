// The report in a real Chromium: bun run test:browser. Fails without Chromium, so it is not part of "bun test".
// CHROMIUM names the program; default: chromium.
import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { launch } from "../../tests/helpers/browser.ts";
import { temporaryFolder } from "../../tests/helpers/support.ts";
import { judgedEntries } from "../judge/fixture.ts";
import { renderReport } from "../judge/report.ts";
import { contestPage } from "./fixture.ts";
import { type Page, writeReport } from "./page.ts";

const { path: folder, ...made } = await temporaryFolder();
const browser = await launch(join(folder, "profile"));
afterAll(async () => {
  await browser.close();
  await made[Symbol.asyncDispose]();
});

const contest = contestPage();
const [run] = contest.runs as [Page["runs"][number]];
const few = run.requests.filter((_, index) => index % 97 === 0).slice(0, 40);
const bench: Page = {
  ...contest,
  title: "Benchmark",
  runs: [
    { ...run, title: "mixed", samples: [], requests: few },
    {
      ...run,
      title: "create",
      passed: false,
      problems: ["lost: <script>alert(1)</script>"],
      samples: [],
      requests: [],
    },
  ],
};
const pages = { contest, bench };

/** The judge's page. Returns its path. */
async function writeJudged(): Promise<string> {
  const report = join(folder, "judge", "report.html");
  await Bun.write(report, renderReport(judgedEntries(), contest));
  return report;
}

/** The result of page.browser.seen.js. */
type Seen = {
  charts: {
    title: string;
    svgs: number;
    drawn: number;
    smallest: number;
    overlaps: string[];
    outside: string[];
  }[];
  scrollsSideways: boolean;
  background: string;
  text: string;
};

describe.each([
  ["contest", "light", 1200],
  ["contest", "dark", 1200],
  ["contest", "light", 390],
  ["contest", "dark", 768],
  ["bench", "light", 1200],
  ["bench", "light", 390],
  ["judge", "light", 1200],
  ["judge", "dark", 1200],
  ["judge", "light", 390],
] as const)("%s, %s, %d pixels wide", (name, scheme, width) => {
  let seen: Seen;
  let events: string[];
  let barriers: string[];

  beforeAll(async () => {
    const report =
      name === "judge" ? await writeJudged() : await writeReport(join(folder, name), pages[name]);
    const tab = await browser.open(pathToFileURL(report).href, { scheme, width });
    await tab.run('for (const cell of document.querySelectorAll("details")) cell.open = true; true');
    seen = await tab.run<Seen>(await Bun.file(join(import.meta.dir, "page.browser.seen.js")).text());
    events = tab.events;
    barriers = await tab.barriers();
    await tab.close();
  });

  test("all charts are drawn", () => {
    const few = ["Latency over time", "Throughput", "Latency histogram"];
    const all = [...few, "CPU", "Memory", "Reads answered", "Requests per database"];
    const expected = { contest: all, bench: few, judge: [...all, ...few] }[name];
    expect(seen.charts.map(({ title }) => expected.find((start) => title.startsWith(start)))).toEqual(
      expected,
    );
    for (const { svgs, drawn, title } of seen.charts)
      expect([title, svgs, drawn > 2]).toEqual([title, 1, true]);
  });

  test("it is legible: no text overlaps another, is cut off or tiny, and nothing is wider than the screen", () => {
    for (const { title, overlaps, outside, smallest } of seen.charts) {
      expect({ title, overlaps, outside, large: smallest > 9 }).toEqual({
        title,
        overlaps: [],
        outside: [],
        large: true,
      });
    }
    expect(seen.scrollsSideways).toBe(false);
  });

  test("axe finds no obstacle to accessibility", () => {
    expect(barriers).toEqual([]);
  });

  test("it follows the reader's colour scheme", () => {
    expect(seen.background).toBe(scheme === "dark" ? "rgb(14, 17, 22)" : "rgb(245, 246, 248)");
  });

  test("the console is empty, and only the page is fetched", () => {
    expect(events).toEqual([expect.stringMatching(/^request file:.*report\.html$/)]);
  });

  test("a measurement that is missing has its reason, and no text becomes HTML", () => {
    if (name === "contest") return expect(seen.text).not.toContain("not measured");
    expect(seen.text).toContain("CPU and memory: not measured");
    if (name === "judge") return expect(seen.text).toContain("got: <script>alert(1)</script>");
    expect(seen.text).toContain("no request was answered");
    expect(seen.text).toContain("lost: <script>alert(1)</script>");
  });
});

test("a cell of the judge's table unfolds to its evidence, wrong answers first", async () => {
  const tab = await browser.open(pathToFileURL(await writeJudged()).href, { scheme: "light", width: 390 });
  const found = await tab.run<string[]>(`
    [...document.querySelectorAll("details")].map((cell) => {
      const list = cell.querySelector("ul");
      const before = list.checkVisibility();
      cell.querySelector("summary").click();
      return [cell.querySelector("summary").textContent, before, list.checkVisibility(), list.textContent].join();
    })`);
  await tab.close();
  expect(found).toHaveLength(4);
  expect(found[0]).toStartWith("✓ 201,false,true,lenient dates: other");
  expect(found[1]).toStartWith("✗ <script>alert(1)</script>,false,true,wrong dates: other");
});

test("the table of all scenarios is on the first screen, and its links lead to their sections", async () => {
  const report = await writeReport(join(folder, "bench"), bench);
  const tab = await browser.open(pathToFileURL(report).href, { scheme: "light", width: 1200 });
  const found = await tab.run<[number, string, number][]>(`
    [...document.querySelectorAll(".overview a")].map((link) => {
      scrollTo(0, 0);
      const { bottom } = link.getBoundingClientRect();
      link.click();
      const section = document.querySelector(":target");
      return [bottom, section.querySelector("h2").textContent, section.getBoundingClientRect().top];
    })`);
  await tab.close();
  const titles = found.map(([, title]) => title.split(" ")[0] as string);
  expect([...new Set(titles)]).toEqual(["mixed", "create"]);
  for (const [bottom, , top] of found) expect([bottom < 900, top < 900]).toEqual([true, true]);
});

test("the browser shows an SVG file", async () => {
  await writeReport(join(folder, "pictures"), contest);
  for (const id of ["latency", "throughput", "histogram", "cpu", "memory", "cache", "batches"]) {
    const tab = await browser.open(pathToFileURL(join(folder, "pictures", `${id}.svg`)).href, {
      scheme: "light",
      width: 1040,
    });
    // In a broken file the browser shows its parser's error, which is HTML.
    const found = await tab.run<unknown[]>(
      '[document.documentElement.tagName, document.querySelectorAll("text").length > 5]',
    );
    expect([id, ...found]).toEqual([id, "svg", true]);
    await tab.close();
  }
});
