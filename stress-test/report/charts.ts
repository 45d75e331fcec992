import * as echarts from "echarts";
import { short } from "../measure/format.ts";
import type { Timed } from "../measure/statistics.ts";
import type { Sample } from "../measure/usage.ts";
import { bounds, byKind, histogram, metricsOverTime, overTime, type Point, usageOverTime } from "./series.ts";

/** One run to draw. */
export type Run = {
  title: string;
  passed: boolean;
  /** Why it failed, a sentence each. */
  problems: readonly string[];
  /** Name and value, shown above the charts. */
  facts: readonly (readonly [string, string])[];
  requests: readonly Timed[];
  /** Default: the time from the first request to the last answer. */
  seconds?: number;
  /** CPU, memory and metrics during the run. */
  samples: readonly Sample[];
};

// Placeholder colours. In the page they become CSS variables, for light and dark. In an SVG file they become fixed
// colours that are legible on white and on black.
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
// Okabe and Ito's colours, which colour-blind people can distinguish, with a lightness for both backgrounds.
const alone = new Map<string, string>([
  [paint.ink, "#7b828c"],
  [paint.line, "#7b828c40"],
  [paint.failed, "#d9422f"],
  ...["#2a86cf", "#0f9d78", "#d98a10", "#b56bab", "#3fa9dc", "#8a8f2e"].map(
    (color, index): [string, string] => [paint.series[index] as string, color],
  ),
]);

// One row, one colour: a kind of request or a service has the same colour in every chart.
const colored = [
  ["create", "insert", "api1", "server"],
  ["read", "get", "find", "nginx"],
  ["search", "db"],
  ["search without t", "invalid"],
  ["api2"],
];

function colorOf(name: string): string {
  const known = colored.findIndex((names) => names.includes(name));
  const other = [...name].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % paint.series.length;
  return paint.series[known === -1 ? other : known] as string;
}

export type Size = { width: number; narrow: boolean; titled: boolean };
export type Chart = {
  id: string;
  title: string;
  /** How to read it. */
  note: string;
  /** As wide as the page. */
  large?: boolean;
  draw(size: Size): { height: number; option: echarts.EChartsOption };
};

type Missing = { title: string; missing: string };

/** The charts of a run. A chart that cannot be drawn has a reason instead. */
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
      : { title: "Cache hit ratio", missing: metrics.readings < 2 ? noMetrics : "no person was read." },
    metrics.batchSize.size > 0
      ? lines({
          id: "batches",
          title: "Requests per database statement",
          note: "Creates (insert), reads (find) and searches that wait for Postgres share a statement: it grows with the load.",
          seconds: time.seconds,
          series: toLines(metrics.batchSize),
        })
      : { title: "Batch sizes", missing: metrics.readings < 2 ? noMetrics : "no statement was sent." },
  ];
}

export const text = { color: paint.ink, fontFamily: "system-ui, sans-serif", fontSize: 12 };
// The width of a wide font, because the reader's font is unknown.
const textWidth = (value: string, fontSize = text.fontSize) => value.length * fontSize * 0.6;
echarts.setPlatformAPI({
  measureText: (value, font) => ({
    width: textWidth(value, Number.parseFloat(/[\d.]+px/.exec(font ?? "")?.[0] ?? "12")),
  }),
});
const dashes = ["solid", "dashed", "dotted", [8, 3, 2, 3]];

/** `label`: in the legend, instead of `name`. */
type Line = { name: string; label?: string; points: readonly Point[] };

const lineOnly = { itemStyle: { opacity: 0 } }; // hides the dot on the legend's line
const squares = { icon: "roundRect", itemHeight: 10, itemWidth: 14 };
const legendItem = { mark: 22, gap: 14 };

function toLines(values: ReadonlyMap<string, readonly Point[]>): Line[] {
  return [...values].sort(byKind).map(([name, points]) => ({ name, points }));
}

/** ECharts does not make room for a legend's rows, so they are counted here. */
function header(names: readonly string[], size: Size, title: string) {
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

type Series = echarts.LineSeriesOption | echarts.BarSeriesOption;

/** A chart with one pair of axes, below its title and legend. */
function framed(
  { id, title, note }: Pick<Chart, "id" | "title" | "note">,
  legend: object,
  xAxis: (narrow: boolean) => object,
  yAxis: object,
  series: Series[],
): Chart {
  return {
    id,
    title,
    note,
    draw(size) {
      const names = series.map(({ name }) => String(name));
      const head = header(names, size, title);
      return {
        height: head.bottom + 220,
        option: {
          title: head.title,
          legend: { ...head.legend, ...legend },
          grid: { left: 52, right: 16, top: head.bottom, bottom: 34 },
          xAxis: xAxis(size.narrow),
          yAxis,
          series,
        },
      };
    },
  };
}

/** A line, or a dot if there is a single point. */
function lineOf(
  name: string,
  data: readonly Point[],
  color: string,
  style: object,
): echarts.LineSeriesOption {
  return {
    type: "line",
    name,
    data: [...data],
    symbol: data.length === 1 ? "circle" : "none",
    itemStyle: { color },
    lineStyle: { color, ...style },
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

/** A vertical axis is drawn as horizontal lines alone. */
const ruled = {
  axisLabel: { ...text, formatter: short },
  axisLine: { show: false },
  axisTick: { show: false },
  splitLine: { lineStyle: { color: paint.line } },
};

function valueAxis(percent = false) {
  return {
    type: "value",
    min: 0,
    // Above 100 % if a service took more for a moment.
    ...(percent
      ? { interval: 25, max: ({ max }: { max: number }) => Math.max(100, Math.ceil(max / 25) * 25) }
      : {}),
    splitNumber: 4,
    ...ruled,
  };
}

const limitLine: NonNullable<echarts.LineSeriesOption["markLine"]> = {
  symbol: "none",
  silent: true,
  lineStyle: { color: paint.failed, type: "dashed", width: 1 },
  label: { ...text, color: paint.failed, formatter: "limit", position: "insideStartBottom" },
  data: [{ yAxis: 100 }],
};

function lines(chart: {
  id: string;
  title: string;
  note: string;
  seconds: number;
  percent?: boolean;
  /** Draws a line at 100 %. */
  limited?: boolean;
  series: readonly Line[];
}): Chart {
  return framed(
    chart,
    lineOnly,
    (narrow) => timeAxis(chart.seconds, narrow),
    valueAxis(chart.percent),
    chart.series.map(({ name, label = name, points }, index) => ({
      ...lineOf(label, points, colorOf(name), { width: 2, type: dashes[index % dashes.length] }),
      ...(chart.limited && index === 0 ? { markLine: limitLine } : {}),
    })),
  );
}

type OverTime = ReturnType<typeof overTime>;

/** A panel for each kind. */
function latencyChart({ kinds, seconds, sliceS }: OverTime): Chart {
  const percentiles = [
    { name: "p50", width: 2.5, type: "solid" },
    { name: "p95", width: 1.5, type: "dashed" },
    { name: "p99", width: 1.5, type: "dotted" },
  ] as const;
  const scale = decadesOf(kinds.flatMap(({ p50, p99 }) => [...p50, ...p99].map(([, ms]) => ms)));
  return panels({
    id: "latency",
    title: "Latency over time (ms)",
    note:
      `Percentiles of the requests sent in every ${sliceS} s. Each line up is ten times slower; ` +
      `what took less than ${short(scale.min)} ms is drawn there.`,
    lines: percentiles,
    scale,
    layout: ({ narrow }) =>
      narrow ? { columns: 1, panelHeight: 200 } : { columns: Math.min(2, kinds.length), panelHeight: 220 },
    xAxis: (width) => timeAxis(seconds, width < 600),
    charts: kinds.map((kind) => ({
      name: kind.kind,
      color: colorOf(kind.kind),
      series: percentiles.map(({ name, ...style }) => {
        const points = kind[name].map(([atS, ms]): Point => [atS, Math.max(scale.min, ms)]);
        return lineOf(name, points, colorOf(kind.kind), style);
      }),
    })),
  });
}

/** The powers of ten around these milliseconds, at least a decade. */
export function decadesOf(values: readonly number[]): { min: number; max: number } {
  const positive = values.filter((ms) => ms > 0);
  const [fastest, slowest] = positive.length > 0 ? bounds(positive, (ms) => ms) : [1, 1];
  const min = 10 ** Math.floor(Math.log10(fastest));
  return { min, max: Math.max(min * 10, 10 ** Math.ceil(Math.log10(slowest))) };
}

type Panels = Pick<Chart, "id" | "title" | "note"> & {
  /** For the legend. */
  lines: readonly { name: string; width: number; type: "solid" | "dashed" | "dotted" }[];
  charts: readonly { name: string; color?: string; series: readonly echarts.LineSeriesOption[] }[];
  /** Of the vertical axes. Each line stands for ten times the value of the line below. */
  scale: { min: number; max: number };
  layout(size: Size): { columns: number; panelHeight: number };
  xAxis(width: number): object;
};

/** Small charts in rows, each with its name above it, with one scale and under one legend for the lines of all. */
export function panels({ id, title, note, lines, charts, scale, layout, xAxis }: Panels): Chart {
  return {
    id,
    title,
    note,
    large: true,
    draw(size) {
      const names = lines.map(({ name }) => name);
      const head = header(names, size, title);
      const { columns, panelHeight } = layout(size);
      const width = size.width / columns;
      const at = (index: number) => ({
        left: (index % columns) * width,
        top: head.bottom - 8 + Math.floor(index / columns) * panelHeight,
      });
      return {
        height: head.bottom + Math.ceil(charts.length / columns) * panelHeight,
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
            data: lines.map(({ name, ...style }) => ({ name, lineStyle: { color: paint.ink, ...style } })),
          },
          grid: charts.map((_, index) => ({
            left: at(index).left + 52,
            top: at(index).top + 26,
            width: width - 68,
            height: panelHeight - 66,
          })),
          xAxis: charts.map((_, gridIndex) => ({ ...xAxis(width), gridIndex })),
          yAxis: charts.map((_, gridIndex) => ({ type: "log" as const, ...scale, ...ruled, gridIndex })),
          series: charts.flatMap(({ series }, index) =>
            series.map((line) => ({ ...line, xAxisIndex: index, yAxisIndex: index })),
          ),
        },
      };
    },
  };
}

function throughputChart({ kinds, failed, seconds }: OverTime): Chart {
  return framed(
    {
      id: "throughput",
      title: "Throughput (answers per second)",
      note: "One kind on top of the other: the upper edge is all that was answered. Failed ones are part of it.",
    },
    squares,
    (narrow) => timeAxis(seconds, narrow),
    valueAxis(),
    [
      ...kinds.map(({ kind, rate }) => ({
        ...lineOf(kind, rate, colorOf(kind), { width: 1 }),
        stack: "all",
        areaStyle: { color: colorOf(kind), opacity: 0.55 },
      })),
      lineOf("failed", failed, paint.failed, { width: 2 }),
    ],
  );
}

function histogramChart(requests: readonly Timed[]): Chart {
  const { fromMs, counts } = histogram(requests);
  return framed(
    {
      id: "histogram",
      title: "Latency histogram (requests, by ms)",
      note: "Each bar reaches from the time below it up to the next one.",
    },
    squares,
    () => ({
      type: "category",
      data: fromMs.map(short),
      axisLabel: { ...text, margin: 12, hideOverlap: true },
      axisLine: { lineStyle: { color: paint.line } },
      axisTick: { show: false },
    }),
    valueAxis(),
    [...counts].map(([kind, bins]) => ({
      type: "bar",
      name: kind,
      stack: "all",
      data: bins,
      barCategoryGap: "12%",
      itemStyle: { color: colorOf(kind) },
    })),
  );
}

type Uses = ReturnType<typeof usageOverTime>;

function cpuChart(uses: Uses, seconds: number): Chart {
  const limits = uses.map(({ name, cpuLimit, cpus }) => {
    return { name, limit: cpuLimit, limitText: `${cpuLimit} CPU`, points: cpus };
  });
  return limitedChart({ id: "cpu", title: "CPU", unit: "CPUs", note: "", seconds, uses: limits });
}

function memoryChart(uses: Uses, seconds: number): Chart {
  const limits = uses.map(({ name, memoryLimitBytes, bytes }) => {
    const limit = memoryLimitBytes === null ? null : memoryLimitBytes / 2 ** 20;
    const points = bytes.map(([atS, value]): Point => [atS, value / 2 ** 20]);
    return { name, limit, limitText: `${Math.round(limit ?? 0)} MiB`, points };
  });
  const note = " Without file cache that can be given back at once.";
  return limitedChart({ id: "memory", title: "Memory", unit: "MiB", note, seconds, uses: limits });
}

/** In percent of each service's limit, or in `unit` where a service has no limit. */
function limitedChart(chart: {
  id: string;
  title: string;
  unit: string;
  note: string;
  seconds: number;
  uses: readonly { name: string; limit: number | null; limitText: string; points: readonly Point[] }[];
}): Chart {
  const { id, title, unit, note, seconds, uses } = chart;
  const relative = uses.every(({ limit }) => limit !== null);
  const ofLimit = uses.map(({ name, limit, limitText, points }) => ({
    name,
    label: `${name} (of ${limitText})`,
    points: points.map(([atS, value]): Point => [atS, (100 * value) / (limit as number)]),
  }));
  return lines({
    id,
    title: relative ? `${title} of each service (% of its limit)` : `${title} (${unit})`,
    note: relative
      ? `At 100 % a service would have all that its container may use.${note}`
      : `There is no limit to compare with.${note}`,
    seconds,
    percent: relative,
    limited: relative,
    series: relative ? ofLimit : uses,
  });
}

function toSvg(chart: Chart, size: Size, colors: ReadonlyMap<string, string>): string {
  const { height, option } = chart.draw(size);
  const instance = echarts.init(null, null, { renderer: "svg", ssr: true, width: size.width, height });
  instance.setOption({ animation: false, backgroundColor: "transparent", textStyle: text, ...option });
  let svg = instance.renderToSVGString();
  instance.dispose();
  for (const [standIn, color] of colors) svg = svg.replaceAll(standIn, color);
  // Attributes that only ECharts' script and the mouse need.
  return svg
    .replaceAll(/ (ecmeta_\w+|class|pointer-events)="[^"]*"/g, "")
    .replaceAll(/<style.*?<\/style>\n?/gs, "");
}

/** The SVG element of a chart in the page, whose style sheet has the colours. */
export function elementOf(chart: Chart, size: Size): string {
  return toSvg(chart, size, inPage);
}

/** The text of an SVG file, with its title. */
export function pictureOf(chart: Chart, width: number): string {
  return `${toSvg(chart, { width, narrow: false, titled: true }, alone)}\n`;
}
