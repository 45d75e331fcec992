import { sep } from "node:path";
import { mebibytes, milliseconds, number } from "../measure/format.ts";
import { spreadOf } from "../measure/statistics.ts";
import { html, htmlTable, type Page, renderDocument, renderRun } from "../report/page.ts";
import type { LoadRun } from "./load.ts";
import type { Section } from "./section.ts";

export const sections = [
  { name: "rules", title: "Rules" },
  { name: "race", title: "One nickname, 50 times at once" },
  { name: "durable", title: "201s lost by kill -9 (application · database · everything)" },
  { name: "score", title: "Contest's load: persons of the maximum" },
  { name: "cost", title: "Limits" },
  { name: "budget", title: "The same load with less CPU" },
] as const;
/** What was found of one entry; a load of each round. `error`: why it could not be judged to the end. */
export type Judged = {
  name: string;
  error?: string;
  sections: Partial<Record<(typeof sections)[number]["name"], Section>>;
  loads: LoadRun[];
};

/** The headings of entries: the shortest ends of their paths that differ. A repeated folder gets a number. */
export function headingsOf(folders: readonly string[]): string[] {
  return folders.map((folder, nth) => {
    const parts = folder.split(sep);
    const ends = parts.map((_, from) => parts.slice(from).join(sep));
    const rivals = folders.filter((other) => other !== folder).map((other) => sep + other);
    const end = ends.findLast((end) => !rivals.some((rival) => rival.endsWith(sep + end)));
    const before = folders.slice(0, nth).filter((other) => other === folder).length;
    return `${end}${before > 0 ? ` (${before + 1})` : ""}`;
  });
}

const others = "used by others, % of the machine";
const busyNeighbour = 15; // %

type Measure = [title: string, of: (run: LoadRun) => number | undefined, show: (value: number) => string];
/** The rows of figures. */
const measures: Measure[] = [
  ["create p99, ms", ({ latencies }) => latencies.create?.p99, milliseconds],
  ["search p99, ms", ({ latencies }) => latencies.search?.p99, milliseconds],
  ["persons counted late", ({ late }) => late.persons, number],
  ["CPU-seconds", ({ cost }) => cost?.cpuS, (s) => s.toFixed(1)],
  ["seconds throttled", ({ cost }) => cost?.throttledS, (s) => s.toFixed(1)],
  ["peak memory, MiB", ({ cost }) => cost?.peakBytes, mebibytes],
  ["CPU-seconds of docker-proxy", ({ cost }) => cost?.proxyS, (s) => s.toFixed(1)],
  [others, ({ cost }) => cost?.othersPercent, (p) => p.toFixed()],
];

type Cell = { text: string; section?: Section | undefined };
const marks = { right: "✓", wrong: "✗", "not judged": "–" };

/** The table: a row of verdicts for each section, and one for each measure. */
function rowsOf(entries: readonly Judged[]) {
  const verdicts = sections.map(({ name, title }) => {
    const cells = entries.map(({ sections: { [name]: section } }): Cell => {
      return { text: section ? `${marks[section.verdict]} ${section.figure}` : "–", section };
    });
    return { title, cells };
  });
  const figures = measures.map(([title, of, show]) => {
    const cells = entries.map(({ loads }, nth): Cell => {
      const values = loads.flatMap((run) => of(run) ?? []);
      if (values.length === 0) return { text: "–" };
      const isBusy = title === others && Math.max(...values) > busyNeighbour;
      const ratio = nth > 0 && title !== others ? ratioOf(loads, entries[0]?.loads ?? [], of) : "";
      return { text: `${spread(values, show)}${ratio}${isBusy ? " (busy neighbour)" : ""}` };
    });
    return { title, cells };
  });
  return [...verdicts, ...figures].filter(({ cells }) => cells.some(({ text }) => text !== "–"));
}

/** The median of the ratios, round by round, so that what changes on the machine from round to round falls out. */
function ratioOf(runs: readonly LoadRun[], first: readonly LoadRun[], of: Measure[1]): string {
  const pairs = runs.flatMap((run, round) => (first[round] ? [[of(run), of(first[round])]] : []));
  const ratios = pairs.map(([own = 0, other = 0]) => own / other).filter(Number.isFinite);
  return ratios.length > 0 ? ` ×${spreadOf(ratios).median.toFixed(2)}` : "";
}

/** The median, and the range of several. */
function spread(values: readonly number[], show: (value: number) => string): string {
  const { median, min, max } = spreadOf(values);
  return show(min) === show(max) ? show(median) : `${show(median)} (${show(min)} to ${show(max)})`;
}

const errorsOf = (entries: readonly Judged[]) =>
  entries.flatMap(({ name, error }) => (error ? [`${name}: ${error}`] : []));

/** Markdown, for a README. */
export function renderMarkdown(entries: readonly Judged[]): string {
  const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  return [
    line(["", ...entries.map(({ name }) => name)]),
    line(["---", ...entries.map(() => "---")]),
    ...rowsOf(entries).map(({ title, cells }) => line([title, ...cells.map(({ text }) => text)])),
    ...errorsOf(entries).flatMap((error) => ["", error]),
  ].join("\n");
}

/** A page that needs nothing but itself: the table, whose cells unfold to their evidence, and each entry's charts. */
export function renderReport(entries: readonly Judged[], meta: Omit<Page, "title" | "runs">): string {
  const title = entries.length === 1 ? `${entries[0]?.name}, judged` : `${entries.length} entries, judged`;
  const problems = errorsOf(entries).map((error) => `<li>${html(error)}</li>`);
  const rows = rowsOf(entries).map(({ title, cells }) => [html(title), ...cells.map(unfolded)]);
  const runs = entries.flatMap((entry) => {
    const facts = rowsOf([entry]).map(({ title, cells: [cell] }) => [title, cell?.text ?? ""] as const);
    const passed = Object.values(entry.sections).every(({ verdict }) => verdict !== "wrong");
    const about = { title: entry.name, passed, problems: [], facts };
    return entry.loads.slice(0, 1).map((run) => renderRun({ ...run, ...about }, true));
  });
  return renderDocument(title, html(title), meta, [
    problems.length > 0 ? `<ul class="problems">${problems.join("")}</ul>` : "",
    `<div class="judged">${htmlTable("Verdicts", [["", ...entries.map(({ name }) => html(name))], ...rows])}</div>`,
    ...runs,
  ]);
}

const order = ["wrong", "not judged", "lenient", "strict", "right"];

function unfolded({ text, section }: Cell): string {
  if (!section) return html(text);
  const items = section.evidence
    .toSorted((a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome))
    .map(({ rule, outcome, request, expected, got }) => {
      const sent = request && `<br><code>${html(request)}</code>`;
      return `<li><b class="${outcome}">${outcome}</b> ${html(rule)}${sent}<br>expected: ${html(expected)}<br>got: ${html(got)}</li>`;
    });
  return `<details><summary class="${section.verdict}">${html(text)}</summary><p class="muted">${html(section.rule)}</p><ul tabindex="0">${items.join("")}</ul></details>`;
}
