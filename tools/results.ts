// Writes measured numbers into README.md, README.pt-BR.md and docs/results.md: bun run results
import { copyFile, readdir } from "node:fs/promises";
import { basename, join } from "node:path";
import { readArguments, runScript } from "./arguments.ts";

const own = "pessoas";
const usage = `Usage: bun run results [--judge DIR] [RUN...]

Writes the numbers of docs/results/ and of the fault table in docs/reliability.md into README.md, README.pt-BR.md and
docs/results.md, between their markers.

  RUN          folder of a run of run-test.sh with --project, with its verdict.json. These runs replace the recorded
               ones. verdict.json and the charts of the run with the median CPU time are copied, too
  --judge DIR  folder of a report of bun run judge. Its table goes into docs/results.md, and its entries replace the
               recorded other ones. Their headings are owner/repository, and that of this project is ${own}
  -h, --help   this text`;

const root = join(import.meta.dir, "..");
const results = join(root, "docs", "results");

/** The language of each page with markers. */
export const pages = { "README.md": "en", "README.pt-BR.md": "pt-BR", "docs/results.md": "en" } as const;
type Language = (typeof pages)[keyof typeof pages];
type Verdict = typeof import("../docs/results/verdict.json");

/** `share`: count divided by the possible maximum. null: not measured. */
export type Run = {
  entry: string;
  at: string;
  share: number;
  failed: number;
  createP99Ms: number;
  searchP99Ms: number;
  cpuS: number;
  memoryMiB: number | null;
};

/** `judged`: the judge's table and how it was made, in Markdown. */
export type Recorded = { verdict: Verdict; runs: Run[]; faults: Faults; judged: string };
/** Sums of the fault table. `killed`: acknowledged and lost creates, by scenario. */
type Faults = {
  kinds: number;
  acknowledged: number;
  lost: number;
  killed: Record<string, [number, number]>;
};

const readRuns = (): Promise<Run[]> => Bun.file(join(results, "runs.json")).json();

export async function read(): Promise<Recorded> {
  return {
    verdict: await Bun.file(join(results, "verdict.json")).json(),
    runs: await readRuns(),
    faults: readFaults(await Bun.file(join(root, "docs", "reliability.md")).text()),
    judged: (await Bun.file(join(results, "judged.md")).text()).trim(),
  };
}

function readFaults(text: string): Faults {
  const rows = [...text.matchAll(/^\| `([\w-]+)` \|[^|]*\| (\d+) \| \D*\d+\D* \| (\d+) \|/gm)];
  const killed = rows.map(([, name, acknowledged, lost]) => [name, [Number(acknowledged), Number(lost)]]);
  const faults = Object.fromEntries(killed) as Faults["killed"];
  const sum = (column: 0 | 1) => Object.values(faults).reduce((total, row) => total + row[column], 0);
  return { kinds: rows.length, acknowledged: sum(0), lost: sum(1), killed: faults };
}

/** Writes the numbers between the markers of `text`. Throws RangeError for an unknown marker. */
export function render(text: string, language: Language, recorded: Recorded): string {
  const values = valuesOf(language, recorded);
  return text.replace(/(<!-- ([\w -]+) -->)(\n*).*?(<!-- \/ -->)/gs, (_, open, name, line, close) => {
    const value = values[name];
    if (value === undefined) throw new RangeError(`<!-- ${name} -->: there is no such value`);
    return open + line + value + line + close;
  });
}

function valuesOf(language: Language, { verdict, runs, faults, judged }: Recorded): Record<string, string> {
  const english = language === "en";
  const number = (value: number, digits = 0) =>
    value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  const of = (part: number, all: number) => `${number(part)} ${english ? "of" : "de"} ${number(all)}`;
  const duration = (ms: number) => (ms < 1000 ? `${number(ms)} ms` : `${number(ms / 1000, 1)} s`);
  const row = (cells: (string | number)[]) => `| ${cells.join(" | ")} |`;
  const mebibytes = (mebi: number) => `${number(mebi)} MiB`;
  const percent = (share: number) => `${number(share * 100, share === 1 ? 0 : 1)} %`;

  /** The median, with the range if values differ. */
  function spread(of: Run[], value: (run: Run) => number | null, shown: (value: number) => string): string {
    const sorted = of.map(value).filter((each) => each !== null);
    sorted.sort((a, b) => a - b);
    const [least, most] = [sorted[0], sorted.at(-1)];
    if (least === undefined || most === undefined) return "–";
    const median = shown(medianOf(sorted));
    const [from, to] = [shown(least), shown(most)];
    const unit = / \D+$/.exec(to)?.[0] ?? "";
    if (from === to) return median;
    return `${median} (${from.endsWith(unit) ? from.slice(0, from.length - unit.length) : from}–${to})`;
  }

  const ours = runs.filter(({ entry }) => entry === own);
  const requests = Object.entries(verdict.requests);
  const services = Object.entries(verdict.services);
  type Used = Pick<Verdict["services"]["db"], "userS" | "systemS" | "throttledS">;
  const sum = (key: keyof Used) => services.reduce((total, [, service]) => total + service[key], 0);
  const sent = requests.reduce((total, [, each]) => total + each.requests, 0);
  const failed = requests.reduce((total, [, each]) => total + each.failed, 0);
  const used = (name: string, { userS, systemS, throttledS }: Used, bytes: number) =>
    row([name, ...[userS, systemS, throttledS].map((s) => number(s, 1)), mebibytes(bytes / 2 ** 20)]);

  const columns = english
    ? "entry, count, failed, create p99, search p99, CPU-seconds, memory, runs"
    : "inscrição, contagem, falhas, p99 da criação, p99 da busca, segundos de CPU, memória, rodadas";
  const right = (names: string[]) => [row(names), row(names.map((_, i) => (i === 0 ? "---" : "---:")))];
  const entryRow = ([entry, of]: [string, Run[]]) =>
    row([
      entry === own ? (english ? "**this one**" : "**esta**") : `[${entry}](https://github.com/${entry})`,
      spread(of, ({ share }) => share, percent),
      spread(of, (run) => run.failed, number),
      spread(of, (run) => run.createP99Ms, duration),
      spread(of, (run) => run.searchP99Ms, duration),
      spread(of, (run) => run.cpuS, number),
      spread(of, (run) => run.memoryMiB, mebibytes),
      of.length,
    ]);
  const killed = (scenario: string) => {
    const [acknowledged = 0, lost = 0] = faults.killed[scenario] ?? [];
    return `${number(acknowledged)} / **${number(lost)}**`;
  };

  return {
    judged,
    failed: of(failed, sent),
    count: of(verdict.count.stored, verdict.count.maximum),
    "lost or changed": of(verdict.readBack.lost + verdict.readBack.changed, verdict.readBack.persons),
    "create p99": spread(ours, (run) => run.createP99Ms, duration),
    "CPU-seconds": spread(ours, (run) => run.cpuS, number),
    memory: spread(ours, (run) => run.memoryMiB, mebibytes),
    runs: number(ours.length),
    faults: number(faults.kinds),
    "lost in faults": of(faults.lost, faults.acknowledged),
    "kill-both-apis": killed("kill-both-apis"),
    "kill-postgres": killed("kill-postgres"),
    machine: `${verdict.at.slice(0, 10)}, ${verdict.machine.cpus} × ${verdict.machine.model}`,
    entries: [
      ...right(columns.split(", ")),
      ...[...Map.groupBy(runs, ({ entry }) => entry)].map(entryRow),
    ].join("\n"),
    requests: [
      ...right(["", "requests", "failed", "p50", "p95", "p99", "max"]),
      ...requests.map(([name, { requests: all, failed, p50, p95, p99, max }]) =>
        row([name, number(all), number(failed), ...[p50, p95, p99, max].map(duration)]),
      ),
    ].join("\n"),
    services: [
      ...right(["", "CPU-seconds: user", "system", "throttled", "peak memory"]),
      ...services.map(([name, service]) => used(name, service, service.peakWorkingSetBytes)),
      used(
        "all",
        { userS: sum("userS"), systemS: sum("systemS"), throttledS: sum("throttledS") },
        verdict.peakWorkingSetBytes,
      ),
    ].join("\n"),
  };
}

/** `sorted`: ascending. Of an even number of values the lower middle one, because it was measured. */
function medianOf(sorted: number[]): number {
  return sorted[Math.floor((sorted.length - 1) / 2)] as number;
}

function runOf({ at, count, requests, services, peakWorkingSetBytes }: Verdict): Run {
  const cpuS = Object.values(services).reduce((total, { userS, systemS }) => total + userS + systemS, 0);
  return rounded({
    entry: own,
    at,
    share: count.stored / count.maximum,
    failed: Object.values(requests).reduce((total, { failed }) => total + failed, 0),
    createP99Ms: requests.create.p99,
    searchP99Ms: requests.search.p99,
    cpuS,
    memoryMiB: peakWorkingSetBytes / 2 ** 20,
  });
}

function rounded(run: Run): Run {
  return {
    ...run,
    at: run.at.slice(0, 10),
    share: Math.round(run.share * 1000) / 1000,
    createP99Ms: Math.round(run.createP99Ms),
    searchP99Ms: Math.round(run.searchP99Ms),
    cpuS: Math.round(run.cpuS * 10) / 10,
    memoryMiB: run.memoryMiB === null ? null : Math.round(run.memoryMiB),
  };
}

/** Of an entry's loads in the judge's result.json. */
type JudgedEntry = {
  name: string;
  loads: {
    stored: number;
    maximum: number;
    failed: number;
    latencies: Record<string, { p99: number }>;
    cost: { cpuS: number; peakBytes: number } | null;
  }[];
};
type Judgement = {
  at: string;
  command: string;
  machine: { cpus: number; model: string };
  entries: JudgedEntry[];
};

async function recordJudged(folder: string): Promise<void> {
  const result = Bun.file(join(folder, "result.json"));
  if (!(await result.exists())) throw new RangeError(`--judge: there is no result.json in ${folder}`);
  const { at, command, machine, entries }: Judgement = await result.json();
  const runs = entries.flatMap(({ name, loads }) =>
    loads.map(({ stored, maximum, failed, latencies, cost }) => {
      const { create, search } = latencies;
      if (!cost || !create || !search) throw new RangeError(`--judge: ${name}: the load was not measured`);
      return rounded({
        entry: name,
        at,
        share: stored / maximum,
        failed,
        createP99Ms: create.p99,
        searchP99Ms: search.p99,
        cpuS: cost.cpuS,
        memoryMiB: cost.peakBytes / 2 ** 20,
      });
    }),
  );
  const ours = (await readRuns()).filter(({ entry }) => entry === own);
  await writeRuns([...ours, ...runs.filter(({ entry }) => entry !== own)]);
  const how = `Made on ${at.slice(0, 10)}, ${machine.cpus} × ${machine.model}, by:`;
  const text = `${(await Bun.file(join(folder, "table.md")).text()).trim()}\n\n${how}\n\n\`\`\`sh\n${command}\n\`\`\`\n`;
  await Bun.write(join(results, "judged.md"), text);
}

async function writeRuns(runs: Run[]): Promise<void> {
  const lines = runs.map((run) => `  ${JSON.stringify(run)}`);
  await Bun.write(join(results, "runs.json"), `[\n${lines.join(",\n")}\n]\n`);
}

async function record(folders: string[]): Promise<void> {
  const measured = await Promise.all(
    folders.map(async (folder) => {
      const file = Bun.file(join(folder, "verdict.json"));
      if (!(await file.exists())) throw new RangeError(`${folder}: there is no verdict.json`);
      const verdict: Verdict = await file.json();
      if (!("services" in verdict)) throw new RangeError(`${folder}: measured without --project`);
      return { folder, run: runOf(verdict) };
    }),
  );
  const others = (await readRuns()).filter(({ entry }) => entry !== own);
  await writeRuns([...measured.map(({ run }) => run), ...others]);
  const median = medianOf(measured.map(({ run }) => run.cpuS).sort((a, b) => a - b));
  const folder = measured.find(({ run }) => run.cpuS === median)?.folder as string;
  const shown = (await readdir(folder)).filter((name) => name === "verdict.json" || name.endsWith(".svg"));
  for (const name of shown) await copyFile(join(folder, name), join(results, basename(name)));
}

async function main(): Promise<void> {
  const { judge, folders } = readArguments(
    usage,
    { judge: { type: "string" } },
    ({ judge }, folders) => ({ judge, folders }),
    Number.POSITIVE_INFINITY,
  );
  if (judge !== undefined) await recordJudged(judge);
  if (folders.length > 0) await record(folders);
  const recorded = await read();
  for (const [page, language] of Object.entries(pages)) {
    const path = join(root, page);
    await Bun.write(path, render(await Bun.file(path).text(), language, recorded));
  }
}

if (import.meta.main) await runScript(main);
