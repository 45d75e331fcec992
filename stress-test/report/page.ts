import { existsSync } from "node:fs";
import { join } from "node:path";
import { readArguments, runScript } from "../../tools/arguments.ts";
import { mebibytes, milliseconds, number } from "../measure/format.ts";
import { readLog } from "../measure/gatling.ts";
import { nameMachine } from "../measure/machine.ts";
import { summarise, type Timed } from "../measure/statistics.ts";
import { peakOfAll, readSamples, type Sample, sumUsage } from "../measure/usage.ts";
import type { Verdict } from "../measure/verdict.ts";
import { type Chart, chartsOf, elementOf, pictureOf, type Run } from "./charts.ts";
import { byKind, overTime } from "./series.ts";

const usage = `Usage: page.ts [OPTIONS] RESULTS_DIR

Draws a finished run: one page that fetches nothing, and an SVG file of each chart. Reads simulation.log,
verdict.json and usage.jsonl (if it exists) in RESULTS_DIR; writes report.html and *.svg there.

  --command TEXT     the command that repeats the run, shown on the page
  -h, --help         this text`;

/** One page with one run, or several below each other. */
export type Page = { title: string; at: string; machine: string; command: string; runs: readonly Run[] };

/** The texts of report.html and of each chart's SVG file, by name. */
export function renderFiles(page: Page): Record<string, string> {
  const files: Record<string, string> = { "report.html": renderPage(page) };
  for (const run of page.runs) {
    const prefix = page.runs.length === 1 ? "" : `${idOf(run)}-`;
    for (const chart of chartsOf(run)) {
      if ("missing" in chart) continue;
      files[`${prefix}${chart.id}.svg`] = pictureOf(chart, chart.large ? 1000 : 640);
    }
  }
  return files;
}

export const html = (value: string) => Bun.escapeHTML(value);

/** The page. */
export function renderPage({ title, at, machine, command, runs }: Page): string {
  const passed = runs.every((run) => run.passed);
  const name = `${title}: ${passed ? "passed" : "failed"}`;
  return renderDocument(name, `${html(title)} ${badge(passed)}`, { at, machine, command }, [
    runs.length > 1 ? overview(runs) : "",
    ...runs.map((run) => renderRun(run, runs.length > 1)),
  ]);
}

/** A page of HTML sections. It fetches nothing and has no script; its Content-Security-Policy allows neither. */
export function renderDocument(
  title: string,
  heading: string,
  { at, machine, command }: Pick<Page, "at" | "machine" | "command">,
  sections: readonly string[],
): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${html(title)}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${heading}</h1>
<p class="muted">${html(at)} · ${html(machine)}</p>
<pre>${html(command)}</pre>
</header>
<main>
${sections.join("\n")}
</main>
</body>
</html>
`;
}

/** The anchor of the run, and the prefix of its SVG files. */
const idOf = ({ title }: Run) => title.replaceAll(/\W+/g, "-");

/** One table of all runs with a row for each kind of request, linked to its run. */
function overview(runs: readonly Run[]): string {
  const rows = runs.flatMap((run) => {
    const kinds = [...Map.groupBy(run.requests, ({ kind }) => kind)].sort(byKind);
    const link = (text: string) => `<a href="#${idOf(run)}">${html(text)}</a>`;
    const verdict = run.passed ? "passed" : "failed";
    if (kinds.length === 0) return [[link(run.title), verdict, ...Array<string>(7).fill("–")]];
    const { seconds = overTime(run.requests).seconds } = run;
    return kinds.map(([kind, own]) => {
      const name = kinds.length === 1 ? run.title : `${run.title}: ${kind}`;
      return [link(name), verdict, number(Math.round(own.length / seconds)), ...latencyCells(own)];
    });
  });
  const head = ["", "result", "per s", "requests", "failed", "p50", "p95", "p99", "max"];
  return `<div class="overview">${htmlTable("All scenarios, latency in ms", [head, ...rows])}</div>`;
}

function badge(passed: boolean): string {
  return `<span class="badge ${passed ? "passed" : "failed"}">${passed ? "passed" : "failed"}</span>`;
}

export function renderRun(run: Run, several: boolean): string {
  const charts = chartsOf(run);
  const drawn = charts.flatMap((chart) =>
    "missing" in chart ? [] : [renderChart(chart, several ? "h3" : "h2")],
  );
  const missing = charts.flatMap((chart) =>
    "missing" in chart ? [`<p class="muted">${html(chart.title)}: ${html(chart.missing)}</p>`] : [],
  );
  const problems = run.problems.slice(0, 20).map((problem) => `<li>${html(problem)}</li>`);
  if (run.problems.length > 20) problems.push(`<li>and ${number(run.problems.length - 20)} more</li>`);
  return `<section${several ? ` id="${idOf(run)}"` : ""}>
${several ? `<h2>${html(run.title)} ${badge(run.passed)}</h2>` : ""}
${problems.length > 0 ? `<ul class="problems">${problems.join("")}</ul>` : ""}
<dl>${run.facts.map(([name, value]) => `<div><dt>${html(name)}</dt><dd>${html(value)}</dd></div>`).join("")}</dl>
<div class="tables">${latencyTable(run.requests)}${usageTable(run.samples)}</div>
<div class="charts">${drawn.join("")}</div>
${missing.join("\n")}
</section>`;
}

function renderChart(chart: Chart, heading: "h2" | "h3"): string {
  const wide = elementOf(chart, { width: chart.large ? 880 : 512, narrow: false, titled: false });
  const narrow = elementOf(chart, { width: 340, narrow: true, titled: false });
  return `<figure${chart.large ? ' class="large"' : ""}>
<${heading}>${html(chart.title)}</${heading}>
<div class="wide">${wide}</div>
<div class="narrow">${narrow}</div>
<figcaption>${html(chart.note)}</figcaption>
</figure>`;
}

/** Cells are HTML. */
export function htmlTable(caption: string, [head = [], ...body]: readonly (readonly string[])[]): string {
  const first = (cell: string) => (cell === "" ? "<td></td>" : `<th scope="row">${cell}</th>`);
  const row = ([name = "", ...cells]: readonly string[], tag: string) =>
    `<tr>${first(name)}${cells.map((cell) => `<${tag}>${cell}</${tag}>`).join("")}</tr>`;
  return `<div class="scroll"><table><caption>${html(caption)}</caption><thead>${row(head, "th")}</thead><tbody>${body.map((cells) => row(cells, "td")).join("")}</tbody></table></div>`;
}

function latencyTable(requests: readonly Timed[]): string {
  const rows = [...Map.groupBy(requests, ({ kind }) => kind)]
    .sort(byKind)
    .map(([kind, own]) => [html(kind), ...latencyCells(own)]);
  return htmlTable("Latency in ms", [["", "requests", "failed", "p50", "p95", "p99", "max"], ...rows]);
}

/** Requests, failed ones, p50, p95, p99 and max. */
function latencyCells(requests: readonly Timed[]): string[] {
  const { p50, p95, p99, max, failed } = summarise(requests);
  return [number(requests.length), number(failed), ...[p50, p95, p99, max].map(milliseconds)];
}

function usageTable(samples: readonly Sample[]): string {
  const services = Object.entries(sumUsage(samples)).sort();
  if (services.length === 0) return "";
  const rows = services.map(([name, use]) => [
    html(use.restarts > 0 ? `${name} (restarted)` : name),
    use.userS.toFixed(2),
    use.systemS.toFixed(2),
    use.throttledS.toFixed(2),
    use.cpuLimit === null ? "none" : String(use.cpuLimit),
    mebibytes(use.peakWorkingSetBytes),
    use.memoryLimitBytes === null ? "none" : mebibytes(use.memoryLimitBytes),
  ]);
  const sum = (key: "userS" | "systemS" | "throttledS") =>
    services.reduce((total, [, use]) => total + use[key], 0).toFixed(2);
  const peak = mebibytes(peakOfAll(samples) ?? 0);
  if (rows.length > 1) rows.push(["all", sum("userS"), sum("systemS"), sum("throttledS"), "", peak, ""]);
  return htmlTable("CPU-seconds, and peak memory in MiB without inactive file cache", [
    ["", "user", "system", "throttled", "CPU limit", "memory", "limit"],
    ...rows,
  ]);
}

const style = `
:root { --bg: #f5f6f8; --card: #fff; --ink: #1b1f24; --muted: #5b6470; --line: #d9dde3; --ok: #0b7a57; --failed: #c4321f;
  --c0: #0072b2; --c1: #009e73; --c2: #d17f00; --c3: #a8548f; --c4: #3aa0d8; --c5: #7d7a00; }
@media (prefers-color-scheme: dark) { :root { --bg: #0e1116; --card: #171b22; --ink: #e6eaf0; --muted: #a2abb8;
  --line: #2f3640; --ok: #2fbf8f; --failed: #ff6b57;
  --c0: #4da3e6; --c1: #2cc295; --c2: #f0a83a; --c3: #d894c6; --c4: #8ed0f5; --c5: #c9c54a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 16px 48px; max-width: 1112px; background: var(--bg); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 4px; }
h2 { font-size: 21px; margin: 40px 0 12px; }
figure > h2, figure > h3 { font-size: 15px; margin: 0 0 8px; }
.badge { font-size: 13px; font-weight: 600; padding: 3px 10px; border-radius: 99px; vertical-align: middle;
  border: 1px solid currentColor; white-space: nowrap; }
.badge.passed { color: var(--ok); } .badge.failed { color: var(--failed); }
.muted, figcaption, dt, caption { color: var(--muted); }
p { margin: 4px 0; }
pre, dl > div, figure, .scroll { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
pre { margin: 12px 0; padding: 10px 14px; white-space: pre-wrap; overflow-wrap: anywhere; font-size: 13px; }
.problems { color: var(--failed); padding-left: 20px; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(196px, 1fr)); gap: 12px; margin: 16px 0; }
dl > div { padding: 10px 14px; }
dt { font-size: 12.5px; } dd { margin: 0; font-size: 17px; font-weight: 600; overflow-wrap: anywhere; line-height: 1.3; }
.overview { margin: 16px 0; } a { color: var(--c0); }
.tables, .charts { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 16px; margin: 16px 0; }
.tables > :only-child, .large { grid-column: 1 / -1; }
.scroll { overflow-x: auto; padding: 10px 14px; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; }
caption { text-align: left; font-size: 12.5px; padding-bottom: 6px; }
th, td { text-align: right; padding: 4px 0 4px 12px; white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { font-weight: 500; color: var(--muted); }
tbody tr { border-top: 1px solid var(--line); }
figure { margin: 0; padding: 14px 14px 12px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 4px; }
.narrow { display: none; }
@media (max-width: 900px) { .tables, .charts { grid-template-columns: minmax(0, 1fr); } }
@media (max-width: 560px) { .wide { display: none; } .narrow { display: block; }
  body { padding: 16px 10px 32px; } figure { padding: 12px 10px; } h1 { font-size: 22px; }
  dl { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 8px; } dl > div { padding: 8px 10px; } dd { font-size: 15px; }
  .scroll { padding: 10px; } table { font-size: 12px; } th, td { padding-left: 6px; } th { white-space: normal; } }
.judged td { text-align: left; white-space: normal; vertical-align: top; min-width: 128px; }
.judged th { text-align: left; vertical-align: top; white-space: normal; } .judged thead th { padding-left: 12px; }
details { overflow-wrap: anywhere; } summary { cursor: pointer; } details > ul { padding-left: 16px; margin: 6px 0; max-height: 420px; overflow-y: auto; }
.right { color: var(--ok); } .wrong { color: var(--failed); } .lenient, .strict { color: var(--muted); }
@media print { body { background: none; } figure { break-inside: avoid; } }
`;

/** The page of a finished run of run-test.sh in the folder `results`. Throws if there is none. */
export async function readRun(results: string, command: string): Promise<Page> {
  const verdict = (await Bun.file(join(results, "verdict.json")).json()) as Verdict;
  const { requests } = readLog(await Bun.file(join(results, "simulation.log")).text());
  const usageFile = join(results, "usage.jsonl");
  const samples = existsSync(usageFile) ? readSamples(await Bun.file(usageFile).text()) : [];
  const { count, readBack, searches } = verdict;
  const failed = requests.filter((request) => request.failed).length;
  const title = "Contest load";
  return {
    title,
    at: verdict.at,
    machine: nameMachine(verdict.machine),
    command,
    runs: [
      {
        title,
        passed: verdict.passed,
        problems: verdict.problems,
        facts: [
          ["persons stored", `${number(count.stored)} of ${number(count.maximum)}`],
          ["failed requests", `${number(failed)} of ${number(requests.length)}`],
          ["creates sent", number(verdict.creates)],
          ["answered 201", number(count.answered201)],
          [
            "read back",
            `${number(readBack.persons)}: ${readBack.lost} lost, ${readBack.changed + readBack.unreadable} wrong`,
          ],
          ["searches checked", `${number(searches.checked)}: ${searches.wrong} wrong`],
          ...(verdict.requestsPerCpuSecond === null
            ? []
            : [["requests per CPU-second", number(verdict.requestsPerCpuSecond)] as const]),
          ["duration", `${verdict.seconds} s`],
          ["load", verdict.description || "seed unknown"],
        ],
        requests,
        samples,
      },
    ],
  };
}

/** Writes report.html and the SVG files into the folder. Returns the path of the page. */
export async function writeReport(folder: string, page: Page): Promise<string> {
  for (const [name, content] of Object.entries(renderFiles(page)))
    await Bun.write(join(folder, name), content);
  return join(folder, "report.html");
}

async function main(): Promise<void> {
  const { results, ...values } = readArguments(
    usage,
    {
      command: { type: "string", default: "./stress-test/run-test.sh GATLING_DIR" },
    },
    (values, [results]) => {
      if (results === undefined) throw new RangeError("expected one RESULTS_DIR; see --help");
      return { ...values, results };
    },
    1,
  );
  await writeReport(results, await readRun(results, values.command));
}

if (import.meta.main) await runScript(main);
