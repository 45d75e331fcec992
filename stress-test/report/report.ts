import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import * as echarts from "echarts";
import type { Metrics, Sample } from "../measure/usage.ts";
import {
  mebibytes,
  number,
  peakOfAll,
  percentile,
  readLog,
  readSamples,
  summarise,
  sumUsage,
  type Timed,
  type Verdict,
} from "../measure/verdict.ts";

const usage = `Usage: report.ts [OPTIONS] RESULTS_DIR

Draws a finished run: one page that needs nothing but itself, and its pictures for use elsewhere. Reads
simulation.log, verdict.json and (if there) usage.jsonl in RESULTS_DIR; writes report.html and *.svg there.

  --command TEXT     how the run is repeated, for the page
  -h, --help         this text`;

/** One run to draw. */
export type Run = {
  /** What was done, in a few words. */
  title: string;
  passed: boolean;
  /** Why it failed, one sentence each. */
  problems: readonly string[];
  /** Name and value of what the page tells above the pictures. */
  facts: readonly (readonly [string, string])[];
  requests: readonly Timed[];
  /** Its duration; without it, the time from the first request to the last answer. */
  seconds?: number;
  /** CPU, memory and metrics during the run. */
  samples: readonly Sample[];
};

/** What a page shows: one run, or several one below the other. */
export type Page = { title: string; at: string; machine: string; command: string; runs: readonly Run[] };

/** [seconds since the start, value] */
export type Point = [atS: number, value: number];

/**
 * Latencies (ms) and rates (per second) of each kind in equal slices of the time, at the middle of each. Latencies
 * are those of the requests sent in a slice, rates those of the requests answered in it.
 */
export function overTime(requests: readonly Timed[]) {
  const startMs = Math.min(...bounds(requests, ({ startMs }) => startMs));
  const endMs = Math.max(...bounds(requests, ({ startMs, ms }) => startMs + ms));
  const seconds = Math.max(0.001, (endMs - startMs) / 1000);
  const sliceS = sliceSeconds(seconds);
  const slices = Math.max(1, Math.floor(seconds / sliceS)); // the last one takes the rest too
  const slice = (atMs: number) => Math.min(slices - 1, Math.floor((atMs - startMs) / 1000 / sliceS));
  const width = (index: number) => (index < slices - 1 ? sliceS : seconds - index * sliceS);
  const middle = (index: number) => index * sliceS + width(index) / 2;
  const rates = (chosen: readonly Timed[]): Point[] => {
    const answered = new Array<number>(slices).fill(0);
    for (const { startMs, ms } of chosen) (answered[slice(startMs + ms)] as number)++;
    return answered.map((count, index) => [middle(index), count / width(index)]);
  };

  const kinds = Map.groupBy(requests, ({ kind }) => kind);
  return {
    startMs,
    seconds,
    sliceS,
    failed: rates(requests.filter(({ failed }) => failed)),
    kinds: [...kinds].sort(byKind).map(([kind, own]) => {
      const sent = Map.groupBy(own, ({ startMs }) => slice(startMs));
      const sorted = [...sent]
        .sort(([a], [b]) => a - b)
        .map(([index, some]) => ({ atS: middle(index), ms: some.map(({ ms }) => ms).sort((a, b) => a - b) }));
      const line = (p: number) => sorted.map(({ atS, ms }): Point => [atS, percentile(ms, p)]);
      return { kind, p50: line(50), p95: line(95), p99: line(99), rate: rates(own) };
    }),
  };
}

/** Math.min(...all) of 100,000 values overflows the stack. */
function bounds<T>(items: readonly T[], value: (item: T) => number): [min: number, max: number] {
  let [min, max] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY];
  for (const item of items) {
    min = Math.min(min, value(item));
    max = Math.max(max, value(item));
  }
  return [min, max];
}

/** A round number of seconds, so that there are at most 110 slices: enough for a shape, and each with some requests. */
function sliceSeconds(seconds: number): number {
  const round = [0.25, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600];
  return round.find((width) => seconds / width <= 110) ?? seconds / 100;
}

/** How many requests of each kind took how long: [fromMs, below the next fromMs), from fastest to slowest. */
export function histogram(requests: readonly Timed[]): { fromMs: number[]; counts: Map<string, number[]> } {
  const edges = [0];
  // Gatling measures whole milliseconds, which fill each of these from 1 ms on. Finer ones would leave gaps.
  const whole = requests.every(({ ms }) => Number.isInteger(ms));
  for (let decade = whole ? 1 : 0.1; decade < 1e6; decade *= 10) {
    for (const step of [1, 2, 3, 4, 6, 8]) edges.push(Number((step * decade).toPrecision(1)));
  }
  const indexOf = (ms: number) => edges.findLastIndex((edge) => edge <= ms);
  const [fastest, slowest] = bounds(requests, ({ ms }) => ms);
  const [first, last] = [indexOf(fastest), indexOf(slowest)];
  const counts = new Map<string, number[]>();
  for (const [kind, own] of [...Map.groupBy(requests, (request) => request.kind)].sort(byKind)) {
    const bins = new Array<number>(last - first + 1).fill(0);
    for (const { ms } of own) (bins[indexOf(ms) - first] as number)++;
    counts.set(kind, bins);
  }
  return { fromMs: edges.slice(first, last + 1), counts };
}

/** CPUs in use between two samples and bytes without inactive file cache, of each service. */
export function usageOverTime(samples: readonly Sample[], startMs: number) {
  const services = new Set(samples.flatMap((sample) => Object.keys(sample.services)));
  return [...services].sort().map((name) => {
    const own = samples.flatMap(({ atMs, services }) => {
      const use = services[name];
      return use ? [{ atMs, ...use }] : [];
    });
    const cpus = own.slice(1).flatMap((now, index): Point[] => {
      const before = own[index] as typeof now;
      const usedS = now.userS + now.systemS - before.userS - before.systemS;
      const tookS = (now.atMs - before.atMs) / 1000;
      // Fallen: the container has started again. Too close: the counters move in steps of 10 ms.
      if (usedS < 0 || tookS < 0.2) return [];
      return [[((now.atMs + before.atMs) / 2 - startMs) / 1000, usedS / tookS]];
    });
    return {
      name,
      cpuLimit: own[0]?.cpuLimit ?? null,
      memoryLimitBytes: own[0]?.memoryLimitBytes ?? null,
      cpus,
      bytes: own.map(({ atMs, workingSetBytes }): Point => [(atMs - startMs) / 1000, workingSetBytes]),
    };
  });
}

/** Percent of the reads that the cache answered, by service, and requests per statement, by kind over all services. */
export function metricsOverTime(samples: readonly Sample[], startMs: number) {
  const told = samples.filter((sample) => sample.metrics);
  const hitRatio = new Map<string, Point[]>();
  const batchSize = new Map<string, Point[]>();
  const add = (to: Map<string, Point[]>, name: string, point: Point) =>
    to.set(name, [...(to.get(name) ?? []), point]);
  told.slice(1).forEach((now, index) => {
    const before = told[index] as Sample;
    const atS = ((now.atMs + before.atMs) / 2 - startMs) / 1000;
    const items = new Map<string, { statements: number; items: number }>();
    for (const [service, metrics] of Object.entries(now.metrics ?? {})) {
      const earlier = before.metrics?.[service];
      if (!earlier) continue;
      const grew = (name: string) => (metrics[name] ?? 0) - (earlier[name] ?? 0);
      const [hits, misses] = [grew("pessoas_cache_hits_total"), grew("pessoas_cache_misses_total")];
      if (hits < 0 || misses < 0) continue; // it has started again
      if (hits + misses > 0) add(hitRatio, service, [atS, (100 * hits) / (hits + misses)]);
      for (const kind of groupKinds(metrics)) {
        const sum = items.get(kind) ?? { statements: 0, items: 0 };
        sum.statements += grew(`pessoas_group_statements_total{kind="${kind}"}`);
        sum.items += grew(`pessoas_group_items_total{kind="${kind}"}`);
        items.set(kind, sum);
      }
    }
    for (const [kind, sum] of items) {
      if (sum.statements > 0) add(batchSize, kind, [atS, sum.items / sum.statements]);
    }
  });
  return { told: told.length, hitRatio, batchSize };
}

function groupKinds(metrics: Metrics): string[] {
  return Object.keys(metrics).flatMap(
    (name) => /^pessoas_group_items_total\{kind="(\w+)"\}$/.exec(name)?.[1] ?? [],
  );
}

// Charts are drawn in these stand-ins. The page then gives them meaning by CSS, so that one drawing serves light and
// dark; a picture of its own gets fixed colours that can be read on white and on black.
export const paint = {
  ink: "#fe0001",
  line: "#fe0002",
  failed: "#fe0003",
  series: ["#fe0010", "#fe0011", "#fe0012", "#fe0013", "#fe0014", "#fe0015"],
} as const;
const inPage = new Map<string, string>([
  [paint.ink, "var(--muted)"],
  [paint.line, "var(--line)"],
  [paint.failed, "var(--failed)"],
  ...paint.series.map((color, index): [string, string] => [color, `var(--c${index})`]),
]);
// Okabe and Ito's colours, told apart by colour-blind people, in a lightness for both backgrounds.
const alone = new Map<string, string>([
  [paint.ink, "#7b828c"],
  [paint.line, "#7b828c40"],
  [paint.failed, "#d9422f"],
  ...["#2a86cf", "#0f9d78", "#d98a10", "#b56bab", "#3fa9dc", "#8a8f2e"].map(
    (color, index): [string, string] => [paint.series[index] as string, color],
  ),
]);

/** The same thing has the same colour in every picture of every run. */
function colorOf(name: string): string {
  const known = {
    create: 0,
    insert: 0,
    read: 1,
    get: 1,
    find: 1,
    search: 2,
    "search without t": 3,
    invalid: 3,
    api1: 0,
    api2: 4,
    db: 2,
    nginx: 1,
    server: 0,
  }[name];
  const other = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % paint.series.length;
  return paint.series[known ?? other] as string;
}

const kindOrder = ["create", "insert", "read", "get", "find", "search", "search without t", "invalid"];
function byKind([a]: [string, unknown], [b]: [string, unknown]): number {
  const rank = (kind: string) => (kindOrder.includes(kind) ? kindOrder.indexOf(kind) : kindOrder.length);
  return rank(a) - rank(b) || (a < b ? -1 : 1);
}

export type Size = { width: number; narrow: boolean; titled: boolean };
export type Chart = {
  id: string;
  title: string;
  /** A sentence on how to read it. */
  note: string;
  /** As wide as the page. */
  large?: boolean;
  draw(size: Size): { height: number; option: echarts.EChartsOption };
};
type Missing = { title: string; missing: string };

/** The pictures of a run, and for those that cannot be drawn the reason. */
export function chartsOf(run: Run): (Chart | Missing)[] {
  if (run.requests.length === 0) return [{ title: "All pictures", missing: "no request was answered." }];
  const time = overTime(run.requests);
  const uses = usageOverTime(run.samples, time.startMs);
  const metrics = metricsOverTime(run.samples, time.startMs);
  const noUsage =
    "not measured. That needs the registry in docker compose (--project NAME), or a server whose /metrics can be read.";
  const noMetrics =
    "not measured. The registry's /metrics could not be read from here, or the run was too short for two readings.";
  return [
    latencyChart(time),
    throughputChart(time),
    histogramChart(run.requests),
    ...(uses.some(({ cpus }) => cpus.length > 0)
      ? [cpuChart(uses, time.seconds), memoryChart(uses, time.seconds)]
      : [{ title: "CPU and memory", missing: noUsage }]),
    metrics.hitRatio.size > 0
      ? lines({
          id: "cache",
          title: "Reads answered from the cache (%)",
          note: "The others asked Postgres. The contest's clients read a person right after the create, on either instance.",
          seconds: time.seconds,
          percent: true,
          series: toLines(metrics.hitRatio),
        })
      : { title: "Cache hit ratio", missing: metrics.told < 2 ? noMetrics : "no person was read." },
    metrics.batchSize.size > 0
      ? lines({
          id: "batches",
          title: "Requests per database statement",
          note: "Creates (insert), reads (find) and searches that wait for Postgres share a statement: it grows with the load.",
          seconds: time.seconds,
          series: toLines(metrics.batchSize),
        })
      : { title: "Batch sizes", missing: metrics.told < 2 ? noMetrics : "no statement was sent." },
  ];
}

export const text = { color: paint.ink, fontFamily: "system-ui, sans-serif", fontSize: 12 };
// Nobody knows here which font the reader has: room for a wide one keeps texts apart in each.
const textWidth = (value: string, fontSize = text.fontSize) => value.length * fontSize * 0.6;
echarts.setPlatformAPI({
  measureText: (value, font) => ({
    width: textWidth(value, Number.parseFloat(/[\d.]+px/.exec(font ?? "")?.[0] ?? "12")),
  }),
});
const dashes = ["solid", "dashed", "dotted", [8, 3, 2, 3]] as const;

type Line = { name: string; points: readonly Point[]; color: string; dash?: (typeof dashes)[number] };

export const lineOnly = { itemStyle: { opacity: 0 } }; // no dot on the line in the legend
const legendItem = { mark: 22, gap: 14 };

function toLines(values: ReadonlyMap<string, readonly Point[]>): Line[] {
  return [...values].sort(byKind).map(([name, points], index) => {
    return {
      name,
      points,
      color: colorOf(name),
      dash: dashes[index % dashes.length] as (typeof dashes)[number],
    };
  });
}

/** Legends are laid out by the charting library without asking whether they meet the chart: their rows are counted. */
export function header(names: readonly string[], size: Size, title: string) {
  const rowWidth = size.width - 24;
  let [rows, used] = [1, 0];
  for (const name of names) {
    const itemWidth = legendItem.mark + 5 + textWidth(name) + legendItem.gap;
    if (used + itemWidth > rowWidth && used > 0) [rows, used] = [rows + 1, 0];
    used += itemWidth;
  }
  const titleHeight = size.titled ? 30 : 0;
  return {
    bottom: titleHeight + rows * 22 + 16,
    title: size.titled
      ? [{ text: title, left: 8, top: 4, textStyle: { ...text, fontSize: 15, fontWeight: 600 } }]
      : [],
    legend: {
      left: 4,
      top: titleHeight,
      itemWidth: legendItem.mark,
      itemGap: legendItem.gap,
      textStyle: text,
    },
  };
}

function timeAxis(seconds: number, narrow: boolean) {
  return {
    type: "value" as const,
    min: 0,
    max: Math.ceil(seconds * 4) / 4,
    splitNumber: narrow ? 4 : 8,
    axisLabel: { ...text, margin: 12, formatter: "{value} s", showMaxLabel: false, hideOverlap: true },
    axisLine: { lineStyle: { color: paint.line } },
    axisTick: { lineStyle: { color: paint.line } },
    splitLine: { show: false },
  };
}

function valueAxis(percent = false) {
  return {
    type: "value" as const,
    min: 0,
    // Up to 100 %, and further where a service took more for a moment.
    ...(percent
      ? { interval: 25, max: ({ max }: { max: number }) => Math.max(100, Math.ceil(max / 25) * 25) }
      : {}),
    splitNumber: 4,
    axisLabel: { ...text, formatter: short },
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: paint.line } },
  };
}

/** Axis labels without noise: 0.25, 30, 1,500. */
export function short(value: number): string {
  return number(Number(value.toPrecision(3)));
}

function lines(chart: {
  id: string;
  title: string;
  note: string;
  seconds: number;
  percent?: boolean;
  /** A line across all of the chart. */
  limit?: { at: number; label: string } | undefined;
  series: readonly Line[];
}): Chart {
  const { id, title, note, limit } = chart;
  return {
    id,
    title,
    note,
    draw(size) {
      const head = header(
        chart.series.map(({ name }) => name),
        size,
        title,
      );
      return {
        height: head.bottom + 220,
        option: {
          title: head.title,
          legend: { ...head.legend, ...lineOnly },
          grid: { left: 52, right: 16, top: head.bottom, bottom: 34 },
          xAxis: timeAxis(chart.seconds, size.narrow),
          yAxis: valueAxis(chart.percent),
          series: chart.series.map(({ name, points, color, dash }, index) => ({
            type: "line",
            name,
            data: [...points],
            symbol: points.length === 1 ? "circle" : "none",
            itemStyle: { color },
            lineStyle: { color, width: 2, type: (dash ?? "solid") as "solid" },
            ...(limit && index === 0 ? { markLine: limitLine(limit) } : {}),
          })),
        },
      };
    },
  };
}

function limitLine({ at, label }: { at: number; label: string }) {
  return {
    symbol: "none",
    silent: true,
    lineStyle: { color: paint.failed, type: "dashed" as const, width: 1 },
    label: { ...text, color: paint.failed, formatter: label, position: "insideStartBottom" as const },
    data: [{ yAxis: at }],
  };
}

type OverTime = ReturnType<typeof overTime>;

/** A panel for each kind, with one scale for all, so that heights compare. */
function latencyChart({ kinds, seconds, sliceS }: OverTime): Chart {
  const percentiles = [
    { name: "p50", width: 2.5, type: "solid" },
    { name: "p95", width: 1.5, type: "dashed" },
    { name: "p99", width: 1.5, type: "dotted" },
  ] as const;
  const all = kinds.flatMap(({ p50, p99 }) => [...p50, ...p99].map(([, ms]) => ms));
  const positive = all.filter((ms) => ms > 0);
  const [fastest, slowest] = positive.length > 0 ? bounds(positive, (ms) => ms) : [1, 1];
  const min = 10 ** Math.floor(Math.log10(fastest));
  const max = Math.max(min * 10, 10 ** Math.ceil(Math.log10(slowest)));
  const title = "Latency over time (ms)";
  return {
    id: "latency",
    title,
    note:
      `Percentiles of the requests sent in every ${sliceS} s. Each line up is ten times slower; ` +
      `what took less than ${short(min)} ms is drawn there.`,
    large: true,
    draw(size) {
      const { panel, height, option } = panels(
        kinds.map(({ kind }) => ({ name: kind, color: colorOf(kind) })),
        percentiles,
        {
          size,
          title,
          columns: size.narrow ? 1 : Math.min(2, kinds.length),
          panelHeight: size.narrow ? 200 : 220,
        },
      );
      return {
        height,
        option: {
          ...option,
          xAxis: kinds.map((_, gridIndex) => ({ ...timeAxis(seconds, panel.width < 600), gridIndex })),
          yAxis: kinds.map((_, gridIndex) => ({ ...logAxis({ min, max }), gridIndex })),
          series: kinds.flatMap((kind, index) =>
            percentiles.map(({ name, width, type }) => ({
              type: "line" as const,
              name,
              xAxisIndex: index,
              yAxisIndex: index,
              data: kind[name].map(([atS, ms]) => [atS, Math.max(min, ms)]),
              symbol: kind[name].length === 1 ? "circle" : "none",
              itemStyle: { color: colorOf(kind.kind) },
              lineStyle: { color: colorOf(kind.kind), width, type },
            })),
          ),
        },
      };
    },
  };
}

/** Small charts in rows of `columns`, their names above them, below the legend of the lines that each of them has. */
export function panels(
  charts: readonly { name: string; color?: string }[],
  lines: readonly { name: string; width: number; type: "solid" | "dashed" | "dotted" }[],
  { size, title, columns, panelHeight }: { size: Size; title: string; columns: number; panelHeight: number },
) {
  const head = header(
    lines.map(({ name }) => name),
    size,
    title,
  );
  const panel = { width: size.width / columns, height: panelHeight };
  const at = (index: number) => ({
    left: (index % columns) * panel.width,
    top: head.bottom - 8 + Math.floor(index / columns) * panel.height,
  });
  return {
    panel,
    height: head.bottom + Math.ceil(charts.length / columns) * panel.height,
    option: {
      title: [
        ...head.title,
        ...charts.map(({ name, color = paint.ink }, index) => ({
          text: name,
          left: at(index).left + 8,
          top: at(index).top,
          textStyle: { ...text, fontSize: 13, fontWeight: 600 as const, color },
        })),
      ],
      legend: {
        ...head.legend,
        ...lineOnly,
        data: lines.map(({ name, width, type }) => ({
          name,
          lineStyle: { color: paint.ink, width, type },
        })),
      },
      grid: charts.map((_, index) => ({
        left: at(index).left + 52,
        top: at(index).top + 26,
        width: panel.width - 68,
        height: panel.height - 66,
      })),
    },
  };
}

/** The axis upwards of a panel: each line is ten times the one below. */
export function logAxis({ min, max }: { min: number; max: number }) {
  return {
    type: "log" as const,
    min,
    max,
    axisLabel: { ...text, formatter: short },
    axisLine: { show: false },
    axisTick: { show: false },
    splitLine: { lineStyle: { color: paint.line } },
  };
}

function throughputChart({ kinds, failed, seconds }: OverTime): Chart {
  const title = "Throughput (answers per second)";
  return {
    id: "throughput",
    title,
    note: "One kind on top of the other: the upper edge is all that was answered. Failed ones are part of it.",
    draw(size) {
      const head = header([...kinds.map(({ kind }) => kind), "failed"], size, title);
      return {
        height: head.bottom + 220,
        option: {
          title: head.title,
          legend: { ...head.legend, icon: "roundRect", itemHeight: 10, itemWidth: 14 },
          grid: { left: 52, right: 16, top: head.bottom, bottom: 34 },
          xAxis: timeAxis(seconds, size.narrow),
          yAxis: valueAxis(),
          series: [
            ...kinds.map(({ kind, rate }) => ({
              type: "line" as const,
              name: kind,
              stack: "all",
              data: rate,
              symbol: rate.length === 1 ? "circle" : "none",
              itemStyle: { color: colorOf(kind) },
              lineStyle: { color: colorOf(kind), width: 1 },
              areaStyle: { color: colorOf(kind), opacity: 0.55 },
            })),
            {
              type: "line",
              name: "failed",
              data: failed,
              symbol: failed.length === 1 ? "circle" : "none",
              itemStyle: { color: paint.failed },
              lineStyle: { color: paint.failed, width: 2 },
            },
          ],
        },
      };
    },
  };
}

function histogramChart(requests: readonly Timed[]): Chart {
  const { fromMs, counts } = histogram(requests);
  const title = "Latency histogram (requests, by ms)";
  return {
    id: "histogram",
    title,
    note: "Each bar reaches from the time below it up to the next one.",
    draw(size) {
      const head = header([...counts.keys()], size, title);
      return {
        height: head.bottom + 220,
        option: {
          title: head.title,
          legend: { ...head.legend, icon: "roundRect", itemHeight: 10, itemWidth: 14 },
          grid: { left: 52, right: 16, top: head.bottom, bottom: 34 },
          xAxis: {
            type: "category",
            data: fromMs.map(short),
            axisLabel: { ...text, margin: 12, hideOverlap: true },
            axisLine: { lineStyle: { color: paint.line } },
            axisTick: { show: false },
          },
          yAxis: valueAxis(),
          series: [...counts].map(([kind, bins]) => ({
            type: "bar",
            name: kind,
            stack: "all",
            data: bins,
            barCategoryGap: "12%",
            itemStyle: { color: colorOf(kind) },
          })),
        },
      };
    },
  };
}

type Uses = ReturnType<typeof usageOverTime>;

function cpuChart(uses: Uses, seconds: number): Chart {
  return limited({
    id: "cpu",
    what: "CPU",
    unit: "CPUs",
    seconds,
    uses: uses.map(({ name, cpuLimit, cpus }) => ({
      name,
      limit: cpuLimit,
      limitText: `${cpuLimit} CPU`,
      points: cpus,
    })),
  });
}

function memoryChart(uses: Uses, seconds: number): Chart {
  return limited({
    id: "memory",
    what: "Memory",
    unit: "MiB",
    seconds,
    uses: uses.map(({ name, memoryLimitBytes, bytes }) => ({
      name,
      limit: memoryLimitBytes === null ? null : memoryLimitBytes / 2 ** 20,
      limitText: `${Math.round((memoryLimitBytes ?? 0) / 2 ** 20)} MiB`,
      points: bytes.map(([atS, value]): Point => [atS, value / 2 ** 20]),
    })),
  });
}

/** Percent of each one's limit, or in `unit` where not all have one. */
function limited(chart: {
  id: string;
  what: string;
  unit: string;
  seconds: number;
  uses: readonly { name: string; limit: number | null; limitText: string; points: readonly Point[] }[];
}): Chart {
  const { id, what, unit, seconds, uses } = chart;
  const relative = uses.every(({ limit }) => limit !== null);
  const cache = id === "memory" ? " Without file cache that can be given back at once." : "";
  return lines({
    id,
    title: relative ? `${what} of each service (% of its limit)` : `${what} (${unit})`,
    note: relative
      ? `At 100 % a service would have all that its container may use.${cache}`
      : `There is no limit to compare with.${cache}`,
    seconds,
    ...(relative ? { limit: { at: 100, label: "limit" } } : {}),
    percent: relative,
    series: uses.map(({ name, limit, limitText, points }, index) => ({
      name: relative ? `${name} (of ${limitText})` : name,
      points: relative
        ? points.map(([atS, value]): Point => [atS, (100 * value) / (limit as number)])
        : points,
      color: colorOf(name),
      dash: dashes[index % dashes.length] as (typeof dashes)[number],
    })),
  });
}

function toSvg(chart: Chart, size: Size, colors: ReadonlyMap<string, string>): string {
  const { height, option } = chart.draw(size);
  const instance = echarts.init(null, null, { renderer: "svg", ssr: true, width: size.width, height });
  instance.setOption({ animation: false, backgroundColor: "transparent", textStyle: text, ...option });
  let svg = instance.renderToSVGString();
  instance.dispose();
  for (const [standIn, color] of colors) svg = svg.replaceAll(standIn, color);
  // Left by the charting library for its own script and for the mouse.
  return svg
    .replaceAll(/ (ecmeta_\w+|class|pointer-events)="[^"]*"/g, "")
    .replaceAll(/<style.*?<\/style>\n?/gs, "");
}

/** The text of an SVG file for use elsewhere. */
export function pictureOf(chart: Chart, width: number): string {
  return `${toSvg(chart, { width, narrow: false, titled: true }, alone)}\n`;
}

/** Files to write beside each other, by name: report.html, and each picture for use elsewhere. */
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

const html = (value: string) => Bun.escapeHTML(value);

/** The page. Nothing in it is fetched or run, and the browser is told to allow neither. */
export function renderPage({ title, at, machine, command, runs }: Page): string {
  const passed = runs.every((run) => run.passed);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>${html(title)}: ${passed ? "passed" : "failed"}</title>
<style>${style}</style>
</head>
<body>
<header>
<h1>${html(title)} ${badge(passed)}</h1>
<p class="muted">${html(at)} · ${html(machine)}</p>
<pre>${html(command)}</pre>
</header>
<main>
${runs.length > 1 ? overview(runs) : ""}
${runs.map((run) => renderRun(run, runs.length > 1)).join("\n")}
</main>
</body>
</html>
`;
}

/** Names a run in the page's addresses and in the names of its pictures. */
const idOf = ({ title }: Run) => title.replaceAll(/\W+/g, "-");

/** One table of all runs, a row for each kind of request. Each row leads to its run. */
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

function renderRun(run: Run, several: boolean): string {
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
  const wide = toSvg(chart, { width: chart.large ? 880 : 512, narrow: false, titled: false }, inPage);
  const narrow = toSvg(chart, { width: 340, narrow: true, titled: false }, inPage);
  return `<figure${chart.large ? ' class="large"' : ""}>
<${heading}>${html(chart.title)}</${heading}>
<div class="wide">${wide}</div>
<div class="narrow">${narrow}</div>
<figcaption>${html(chart.note)}</figcaption>
</figure>`;
}

/** The first cell of a row is HTML, all others are text. */
function htmlTable(caption: string, [head = [], ...body]: readonly (readonly string[])[]): string {
  const first = (cell: string) => (cell === "" ? "<td></td>" : `<th scope="row">${cell}</th>`);
  const row = ([name = "", ...cells]: readonly string[], tag: string) =>
    `<tr>${first(name)}${cells.map((cell) => `<${tag}>${html(cell)}</${tag}>`).join("")}</tr>`;
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
  const { p50, p95, p99, max, failed } = summarise(
    requests.map(({ ms }) => ms),
    requests.filter((request) => request.failed).length,
  );
  return [number(requests.length), number(failed), ...[p50, p95, p99, max].map(milliseconds)];
}

function milliseconds(ms: number): string {
  return Number.isInteger(ms) || ms >= 100 ? number(Math.round(ms)) : ms.toFixed(ms < 10 ? 2 : 1);
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
@media print { body { background: none; } figure { break-inside: avoid; } }
`;

/** "2 CPUs (model), 8 GiB" */
export function nameMachine({ cpus, model, memoryBytes, kernel }: Verdict["machine"]): string {
  return `${cpus} CPUs (${model || "model unknown"}), ${Math.round(memoryBytes / 2 ** 30)} GiB, kernel ${kernel}`;
}

/** The page of a finished run of run-test.sh. Throws when `results` does not hold one. */
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

/** Writes report.html and the pictures into the folder. Returns the path of the page. */
export async function writeReport(folder: string, page: Page): Promise<string> {
  for (const [name, content] of Object.entries(renderFiles(page)))
    await Bun.write(join(folder, name), content);
  return join(folder, "report.html");
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      command: { type: "string", default: "./stress-test/run-test.sh GATLING_DIR" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(usage);
  const [results] = positionals;
  if (results === undefined || positionals.length > 1)
    throw new RangeError("expected one RESULTS_DIR; see --help");
  await writeReport(results, await readRun(results, values.command));
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(`report.ts: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}
