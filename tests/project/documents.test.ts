import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { dirname, join, normalize, relative } from "node:path";
import { scripts } from "../../package.json";
import { type Growth, renderMarkdown } from "../../stress-test/growth.ts";
import { pages, type Recorded, read, render } from "../../tools/results.ts";
import { project } from "../helpers/support.ts";

const documents: Record<string, string> = {};
for (const pattern of ["*.md", "docs/*.md"]) {
  for await (const path of new Bun.Glob(pattern).scan(project)) {
    documents[path] = await Bun.file(join(project, path)).text();
  }
}
const { "README.md": english = "", "README.pt-BR.md": portuguese = "" } = documents;

const blocks = (text: string) => [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)];
const prose = (text: string) => text.replace(/^```.*?^```$/gms, "");
const headings = (text: string) => [...prose(text).matchAll(/^(#+) (.+)$/gm)];
const links = (text: string) => [...prose(text).matchAll(/\]\(([^)]+)\)/g)].map(([, target = ""]) => target);
const local = (text: string) => links(text).filter((target) => !target.startsWith("http"));
/** Anchors of the headings, as GitHub makes them. */
const anchors = (text: string) =>
  headings(text).map(
    ([, , title = ""]) =>
      `#${title
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, "")
        .replaceAll(" ", "-")}`,
  );

describe("every document", () => {
  test.each(Object.keys(documents))("%s links to files and headings that exist", (path) => {
    const broken = local(documents[path] as string).filter((target) => {
      const [file = "", anchor] = target.split("#");
      const to = file === "" ? path : normalize(join(dirname(path), file));
      if (!existsSync(join(project, to))) return true;
      return anchor !== undefined && !anchors(documents[to] ?? "").includes(`#${anchor}`);
    });
    expect(broken).toEqual([]);
  });

  test.each(Object.keys(documents))("%s names commands that exist", (path) => {
    const text = documents[path] as string;
    const named = [...text.matchAll(/\bbun run ([\w:/.-]*\w)/g)].map(([, name = ""]) => name);
    for (const name of named)
      expect([name, name in scripts || existsSync(join(project, name))]).toEqual([name, true]);
    const shell = blocks(text).flatMap(([, language, code = ""]) => (language === "sh" ? [code] : []));
    const files = shell.flatMap((code) => [
      ...code.matchAll(/(?:^\.\/| -f |^(?=docs\/|tests\/))([\w./-]+)/gm),
    ]);
    for (const [, file = ""] of files) expect([file, existsSync(join(project, file))]).toEqual([file, true]);
  });

  test.each(Object.keys(documents).filter((path) => !path.startsWith("README")))(
    "%s starts with its audience",
    (path) => {
      expect(documents[path]).toMatch(/^# .+\n\nFor (everybody|those) /);
    },
  );

  test("is linked from the front page", () => {
    const linked = new Set(local(english).map((target) => target.replace(/#.*/, "")));
    expect(Object.keys(documents).filter((path) => !linked.has(path) && path !== "README.md")).toEqual([]);
  });

  test("every picture is shown or linked", () => {
    const pictures = [...new Bun.Glob("docs/{images,results}/*.{svg,png}").scanSync(project)];
    const shown = Object.entries(documents).flatMap(([path, text]) =>
      local(text).map((target) => relative(project, join(project, dirname(path), target))),
    );
    expect(pictures.length).toBeGreaterThan(5);
    expect(pictures.filter((path) => !shown.includes(path))).toEqual([]);
  });
});

describe("the front page", () => {
  test("has at most 180 lines and 1,500 words", () => {
    for (const text of [english, portuguese]) {
      expect(text.split("\n").length).toBeLessThanOrEqual(180);
      expect(text.split(/\s+/).length).toBeLessThanOrEqual(1500);
    }
  });

  test("in Portuguese has the same sections, commands, answers, tables and links", () => {
    /** The code without its comments, which are translated. */
    const commands = (text: string) => text.replace(/\s*#.*$/gm, "");
    /** The names in backticks at the start of a table's rows, which are not translated. */
    const rows = (text: string) =>
      [...prose(text).matchAll(/^\| (`[^|]*`|---) .*\|$/gm)].map(([, first]) => first);
    const levels = (text: string) => headings(text).map(([, level]) => level);
    const targets = (text: string) => links(text).filter((target) => !target.startsWith("README"));

    expect(levels(portuguese)).toEqual(levels(english));
    expect(blocks(portuguese).map(([, language]) => language)).toEqual(
      blocks(english).map(([, language]) => language),
    );
    for (const [i, [, language, code = ""]] of blocks(english).entries()) {
      const translated = blocks(portuguese)[i]?.[2] ?? "";
      if (language === "sh") expect(commands(translated)).toBe(commands(code));
      else if (language !== "mermaid") expect(translated).toBe(code);
    }
    expect(rows(portuguese)).toEqual(rows(english));
    expect(targets(portuguese)).toEqual(targets(english));
  });
});

describe("the numbers", async () => {
  const recorded = await read();

  test.each(Object.entries(pages))(
    "of %s are the recorded ones (bun run results writes them)",
    (path, language) => {
      const text = documents[path] as string;
      expect(render(text, language, recorded)).toBe(text);
      // A line that starts with a comment is HTML in Markdown.
      expect(text.match(/^\s*<!-- [\w -]+ -->.+$/gm) ?? []).toEqual([]);
    },
  );

  test("of docs/scaling.md are those of docs/results/growth.json", async () => {
    const growth = (await Bun.file(join(project, "docs/results/growth.json")).json()) as Growth;
    expect(growth.problems).toEqual([]);
    for (const line of renderMarkdown(growth).split("\n"))
      expect(documents["docs/scaling.md"]).toContain(line);
  });

  test("are of runs that passed", () => {
    const { verdict, runs, faults } = recorded;
    expect([verdict.passed, verdict.problems]).toEqual([true, []]);
    expect(verdict.readBack).toMatchObject({ lost: 0, changed: 0 });
    expect(runs.filter(({ entry, failed }) => entry === "pessoas" && failed > 0)).toEqual([]);
    expect([faults.kinds, faults.lost]).toEqual([17, 0]);
  });

  test("beside other entries are those of one judgement, in which this one is right", () => {
    const { runs, judged } = recorded;
    const [heading = ""] = judged.split("\n");
    const entries = [...new Set(runs.map(({ entry }) => entry))];
    expect(heading.split("|").map((cell) => cell.trim())).toEqual(["", "", ...entries, ""]);
    expect(judged.match(/^\| [^|]* \| ✓/gm)?.length).toBe(5); // rules, race, durable, score, cost
    expect(judged).not.toMatch(/^\| [^|]* \| ✗/m);
  });

  test("are the median of the runs, with the range, as each language writes numbers", () => {
    const run = { entry: "pessoas", at: "2026-01-01", share: 1, failed: 0, searchP99Ms: 5, memoryMiB: null };
    const some: Recorded = {
      ...recorded,
      runs: [
        { ...run, createP99Ms: 1500, cpuS: 60 },
        { ...run, createP99Ms: 7, cpuS: 50.6 },
        { ...run, createP99Ms: 900, cpuS: 50.6 },
        { ...run, entry: "a/b", share: 0.951, failed: 12_512, createP99Ms: 17, cpuS: 1000 },
      ],
    };
    const shown = (name: string, language: "en" | "pt-BR") =>
      render(`<!-- ${name} -->old<!-- / -->`, language, some).replace(/^<!-- .*? -->|<!-- \/ -->$/gs, "");
    expect(shown("create p99", "en")).toBe("900 ms (7 ms–1.5 s)");
    expect(shown("create p99", "pt-BR")).toBe("900 ms (7 ms–1,5 s)");
    expect(shown("CPU-seconds", "en")).toBe("51 (51–60)");
    expect(shown("memory", "en")).toBe("–");
    expect(shown("runs", "en")).toBe("3");
    expect(shown("entries", "en")).toContain("\n| **this one** | 100 % | 0 | 900 ms (7 ms–1.5 s) | 5 ms | ");
    expect(shown("entries", "pt-BR")).toContain(
      "\n| [a/b](https://github.com/a/b) | 95,1 % | 12.512 | 17 ms | 5 ms | 1.000 | – | 1 |",
    );
    expect(() => shown("no such", "en")).toThrow("<!-- no such -->: there is no such value");
  });
});
