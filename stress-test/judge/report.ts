import { mebibytes, milliseconds, number } from "../measure/format.ts";
import { spreadOf } from "../measure/statistics.ts";
import { renderDocument, renderRun } from "../report/page.ts";
import type { Evidence, Section } from "./checks.ts";
import type { LoadRun } from "./load.ts";

export const sections = ["rules", "race", "durable", "score", "cost", "budget"] as const;
export type SectionName = (typeof sections)[number];
/** What was found of one entry. `error`: why it could not be judged to the end. */
export type Judged = {
  name: string;
  error?: string;
  sections: Partial<Record<SectionName, Section>>;
  /** One of each round. */
  loads: LoadRun[];
};
export type Meta = { at: string; machine: string; command: string };

const limits = { cpus: 1.5, memoryBytes: 3 * 2 ** 30 };
const busyNeighbour = 15; // %

/** Whether the load was answered, and all persons are there. */
export function scoreOf(runs: readonly LoadRun[], rule: string): Section {
  const evidence = runs.map(({ stored, maximum, failed, requests, faults, late }, round): Evidence => {
    const lateness =
      late.persons === 0 ? "" : `; ${number(late.persons)} of them counted late, by ${late.seconds} s`;
    const reasons = Object.entries(faults).map(([fault, times]) => `; ${number(times)} × ${fault}`);
    return {
      rule: `round ${round + 1}`,
      outcome: stored === maximum && failed === 0 ? "right" : "wrong",
      request: `${number(requests.length)} requests`,
      expected: `${number(maximum)} persons, nothing failed`,
      got: `${number(stored)} persons, ${number(failed)} failed${lateness}${reasons.slice(0, 5).join("")}`,
    };
  });
  const share = spreadOf(runs.map(({ stored, maximum }) => (100 * stored) / maximum)).median;
  const failed = spreadOf(runs.map(({ failed }) => failed)).median;
  return {
    verdict: evidence.some(({ outcome }) => outcome === "wrong") ? "wrong" : "right",
    figure: `${share.toFixed(1)} %, ${number(failed)} failed`,
    rule,
    evidence,
  };
}

/** What the load cost, and whether the limits are the contest's. */
export function costOf(runs: readonly LoadRun[]): Section {
  const rule = `All containers together may use ${limits.cpus} CPUs and 3 GB.`;
  const costs = runs.flatMap(({ cost }) => cost ?? []);
  const [first] = costs;
  if (!first) return { verdict: "not judged", figure: "not measured", rule, evidence: [] };
  const all = Object.values(first.services);
  const sum = (of: (number | null)[]) =>
    of.reduce<number>((total, each) => total + (each ?? Number.POSITIVE_INFINITY), 0);
  const [cpus, bytes] = [
    sum(all.map(({ cpuLimit }) => cpuLimit)),
    sum(all.map(({ memoryLimitBytes }) => memoryLimitBytes)),
  ];
  const within = cpus <= limits.cpus + 1e-6 && bytes <= limits.memoryBytes;
  const text = Number.isFinite(cpus + bytes)
    ? `${cpus.toFixed(2)} CPUs, ${mebibytes(bytes)} MiB`
    : "a container without a limit";
  const evidence: Evidence[] = [
    {
      rule: "limits",
      outcome: within ? "right" : "wrong",
      request: "",
      expected: "1.5 CPUs, 3072.0 MiB",
      got: text,
    },
    ...Object.entries(first.services).map(
      ([service, use]): Evidence => ({
        rule: service,
        outcome: "right",
        request: "CPU-seconds and peak memory",
        expected: "",
        got: `${(use.userS + use.systemS).toFixed(1)} s, throttled ${use.throttledS.toFixed(1)} s, ${mebibytes(use.peakWorkingSetBytes)} MiB`,
      }),
    ),
  ];
  return { verdict: within ? "right" : "wrong", figure: `limits ${text}`, rule, evidence };
}

type Cell = { text: string; section?: Section | undefined };
type Row = { name: string; cells: Cell[] };

const titles: Record<SectionName, string> = {
  rules: "Rules",
  race: "One nickname, 50 times at once",
  durable: "201s lost by kill -9 (application · database · everything)",
  score: "Contest's load: persons of the maximum",
  cost: "Limits",
  budget: "The same load with less CPU",
};
const measures: [string, (run: LoadRun) => number | undefined, (value: number) => string][] = [
  ["create p99, ms", ({ latencies }) => latencies.create?.p99, milliseconds],
  ["search p99, ms", ({ latencies }) => latencies.search?.p99, milliseconds],
  ["persons counted late", ({ late }) => late.persons, number],
  ["CPU-seconds", ({ cost }) => cost?.cpuS, (s) => s.toFixed(1)],
  ["seconds throttled", ({ cost }) => cost?.throttledS, (s) => s.toFixed(1)],
  ["peak memory, MiB", ({ cost }) => cost?.peakBytes, mebibytes],
  ["CPU-seconds of docker-proxy", ({ cost }) => cost?.proxyS, (s) => s.toFixed(1)],
  [
    "used by others, % of the machine",
    ({ cost }) => cost?.othersPercent,
    (p) => `${p.toFixed(0)}${p > busyNeighbour ? " (busy neighbour)" : ""}`,
  ],
];

/** The table: a row of verdicts for each section, and one for each measure. */
export function rowsOf(entries: readonly Judged[]): Row[] {
  const verdicts = sections.flatMap((section): Row[] => {
    const own = entries.map((entry) => entry.sections[section]);
    if (own.every((each) => each === undefined)) return [];
    const cells = own.map((each) => ({
      text: each ? `${mark(each)} ${each.figure}` : "not judged",
      section: each,
    }));
    return [{ name: titles[section], cells }];
  });
  const figures = measures.flatMap(([name, of, show]): Row[] => {
    const cells = entries.map(({ loads }): Cell => {
      const values = loads.map(of);
      if (values.length === 0 || values.some((value) => value === undefined)) return { text: "–" };
      const { median, min, max } = spreadOf(values as number[]);
      const ratios = values.map(
        (value, round) => (value as number) / (of(entries[0]?.loads[round] as LoadRun) ?? Number.NaN),
      );
      const ratio =
        entries.length > 1 && !name.startsWith("used by") && ratios.every(Number.isFinite)
          ? ` ×${spreadOf(ratios).median.toFixed(2)}`
          : "";
      return { text: `${show(median)}${min === max ? "" : ` (${show(min)} to ${show(max)})`}${ratio}` };
    });
    return cells.every(({ text }) => text === "–") ? [] : [{ name, cells }];
  });
  return [...verdicts, ...figures];
}

const mark = ({ verdict }: Section) => ({ right: "✓", wrong: "✗", "not judged": "–" })[verdict];

/** Markdown, for a README. */
export function renderMarkdown(entries: readonly Judged[]): string {
  const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll("|", "\\|")).join(" | ")} |`;
  const rows = rowsOf(entries).map(({ name, cells }) => line([name, ...cells.map(({ text }) => text)]));
  const errors = entries.flatMap(({ name, error }) => (error ? [`${name}: ${error}`] : []));
  return [
    line(["", ...entries.map(({ name }) => name)]),
    line(["---", ...entries.map(() => "---")]),
    ...rows,
    "",
    ...errors,
  ]
    .join("\n")
    .trimEnd();
}

const html = (text: string) => Bun.escapeHTML(text);
const order = ["wrong", "lenient", "strict", "right"] as const;

/** One page that needs nothing but itself: the table, whose cells unfold to their evidence, and each entry's charts. */
export function renderReport(entries: readonly Judged[], meta: Meta): string {
  const unfolded = ({ text, section }: Cell) => {
    if (!section) return html(text);
    const items = section.evidence
      .toSorted((a, b) => order.indexOf(a.outcome) - order.indexOf(b.outcome))
      .map(
        ({ rule, outcome, request, expected, got }) =>
          `<li><b class="${outcome}">${outcome}</b> ${html(rule)}${request ? `<br><code>${html(request)}</code>` : ""}${expected ? `<br>expected: ${html(expected)}` : ""}<br>got: ${html(got)}</li>`,
      );
    return `<details><summary class="${section.verdict}">${html(text)}</summary><p class="muted">${html(section.rule)}</p><ul tabindex="0">${items.join("")}</ul></details>`;
  };
  const head = `<tr><td></td>${entries.map(({ name }) => `<th class="cell">${html(name)}</th>`).join("")}</tr>`;
  const body = rowsOf(entries).map(
    ({ name, cells }) =>
      `<tr><th scope="row">${html(name)}</th>${cells.map((cell) => `<td class="cell">${unfolded(cell)}</td>`).join("")}</tr>`,
  );
  const problems = entries.flatMap(({ name, error }) =>
    error ? [`<li>${html(name)}: ${html(error)}</li>`] : [],
  );
  const charts = entries.flatMap(({ name, loads, sections }) => {
    const [run] = loads;
    if (!run) return [];
    const facts = rowsOf([{ name, loads, sections }]).map((row): [string, string] => [
      row.name,
      row.cells[0]?.text ?? "",
    ]);
    const { requests, samples, seconds } = run;
    return [
      renderRun(
        {
          title: name,
          passed: Object.values(sections).every(({ verdict }) => verdict !== "wrong"),
          problems: [],
          facts,
          requests,
          samples,
          seconds,
        },
        true,
      ),
    ];
  });
  const title = entries.length === 1 ? `${entries[0]?.name}, judged` : `${entries.length} entries, judged`;
  return renderDocument(title, html(title), meta, [
    problems.length > 0 ? `<ul class="problems">${problems.join("")}</ul>` : "",
    `<div class="scroll"><table><thead>${head}</thead><tbody>${body.join("")}</tbody></table></div>`,
    ...charts,
  ]);
}
