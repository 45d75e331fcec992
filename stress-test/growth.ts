import { readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type postgres from "postgres";
import { idOf } from "../contract/pessoa.ts";
import { startEmbedded } from "../database/embedded.ts";
import { type Db, openDb } from "../db.ts";
import { maxPending } from "../search/pending-list.ts";
import { completeTermsStatement } from "../search/search.ts";
import { connect } from "../tests/helpers/support.ts";
import { numberOf, onSignals, personsOf, readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { store } from "./data/bulk-store.ts";
import { randomFrom } from "./data/payloads.ts";
import { type Crowd, crowd, people, type Search, searches } from "./data/people.ts";
import { holds, type Pessoa } from "./data/reference-contract.ts";
import { milliseconds, number, short, table } from "./measure/format.ts";
import { describeMachine, nameMachine } from "./measure/machine.ts";
import { percentile } from "./measure/statistics.ts";
import { type Chart, decadesOf, paint, panels, pictureOf, text } from "./report/charts.ts";

const usage = `Usage: bun run bench:growth [OPTIONS]

Measures how the cost of a create, a read and each class of search grows with the number of persons. Stores 10 k,
100 k and 1 M persons with COPY. At each size it calls db.ts, as the server does, without HTTP and without the cache,
and checks the answers. CPU is that of all processes of Postgres, on Citus of all nodes; it is measured only if all of
them run on this machine, on Linux. Prints two tables. Leaves growth.json, growth.svg and growth.md, which has the
tables and an extrapolation to 1,000 times the last size.

  --to N             persons at the end: 10k, 300k, 1m, 5m … (default 1m)
  --samples N        most samples of each operation at each size (default 400)
  --seconds S        most seconds for each operation at each size (default 10)
  --seed N           seed of persons and terms (default 1)
  --data DIR         folder that keeps the embedded database. The next run with it continues at the size it has
                     (default: a temporary folder, removed at the end)
  --out DIR          folder for the three files (default stress-test/user-files/results/growth-<time>)
  --json             growth.json on standard output instead of the tables
  -h, --help         this text

DATABASE_URL names another database. It has to be empty, and its persons stay there.

Exit code: 0 all answers were right, 1 some were wrong, 2 could not be run.`;

/** One operation at one size, in ms. `cpuMs`: of Postgres for one operation; null: not measured. */
type Cost = {
  samples: number;
  p50: number;
  p99: number;
  max: number;
  cpuMs: number | null;
  /** Persons that a search found, on average. */
  hits: number | null;
};
type Size = {
  persons: number;
  /** By COPY; null if the persons were already stored. */
  copiedPerSecond: number | null;
  tableBytes: number;
  indexBytes: Record<string, number>;
  operations: Record<string, Cost>;
};
export type Growth = {
  at: string;
  machine: ReturnType<typeof describeMachine>;
  server: string;
  seed: number;
  problems: string[];
  sizes: Size[];
};

type Options = { sizes: number[]; samples: number; seconds: number; seed: number };

const together = 64;
const warmUps = 10;
const maxHits = 50;
const maxProblems = 20;
// Longer than a server waits, so that a slow operation is measured, not cut off.
const timeoutMs = 60_000;

/** Fills the database at `url` in steps and measures each. The database must be empty, or as an earlier run left it. */
async function grow(url: string, options: Options, tell: (line: string) => void): Promise<Growth> {
  const open = async () => {
    const db = openDb({ url, timeoutMs, batchSize: 128, searches: 2, queueLimit: 4096 });
    await db.migrate();
    return db;
  };
  let db = await open();
  await using sql = connect(url);
  try {
    const [held] = await sql<{ n: string }[]>`select count(*) as n from pessoas`;
    const [server] = await sql<{ version: string; citus: boolean }[]>`
      select current_setting('server_version') as version,
        exists (select from pg_extension where extname = 'citus') as citus`;
    const already = Number(held?.n);
    const line = people(options.seed);
    const all = crowd(options.seed);
    const next = () => {
      const { value } = line.next();
      all.add(value);
      return value;
    };
    for (let i = 0; i < already; i++) next();
    await expectKnown(sql, all);
    const growth: Growth = {
      at: new Date().toISOString(),
      machine: describeMachine(),
      server: `PostgreSQL ${server?.version}${server?.citus ? " with Citus" : ""}`,
      seed: options.seed,
      problems: [],
      sizes: [],
    };
    const citus = server?.citus === true;
    const cpuS = await postgresCpu(sql, citus);
    // Otherwise autovacuum would start during a measurement.
    const vacuum = async () => void (await sql`vacuum (analyze) pessoas, short_terms`);
    // An earlier run's database is measured once before it grows.
    const sizes = options.sizes.filter((size) => size > already);
    if (already > 0) sizes.unshift(already);
    for (const persons of sizes) {
      const missing = persons - all.size();
      const started = performance.now();
      if (missing > 0) {
        await copy(sql, missing, next, citus);
        // A new one, as after a start of the server.
        await db.close();
        db = await open();
      }
      const seconds = (performance.now() - started) / 1000;
      tell(
        `${number(persons)} persons${missing > 0 ? `, ${number(missing)} of them new in ${seconds.toFixed(1)} s` : ""}`,
      );
      await vacuum();
      await sql`checkpoint`.catch(() => {}); // only a superuser may
      const bytes = await bytesOf(sql, citus);
      const operations: Record<string, Cost> = {};
      // The merge of the rows that creates leave in the pending list is part of their cost.
      const merge = async () => void (await sql`select merge_pending_list()`);
      const creates = Math.max(options.samples, Math.min(maxPending, Math.floor(persons / 24)));
      for (const [name, lanes, run] of operationsOn(db, all, next, options.seed, growth.problems)) {
        const creating = name.startsWith("create");
        const cost = creating
          ? await measure(run, lanes, { ...options, samples: creates }, cpuS, merge)
          : await measure(run, lanes, options, cpuS);
        if (creating) await vacuum();
        tell(`  ${name.padEnd(20)} ${[cost.p50, cost.p99, cost.cpuMs].map(milliseconds).join(" / ")}`);
        operations[name] = cost;
      }
      const copiedPerSecond = missing > 0 ? Math.round(missing / seconds) : null;
      growth.sizes.push({ persons, copiedPerSecond, ...bytes, operations });
    }
    return growth;
  } finally {
    await db.close();
  }
}

/** Each operation: its name, the number in flight, and a function that does it once and resolves with the hits. */
function operationsOn(db: Db, all: Crowd, next: () => Pessoa, seed: number, problems: string[]) {
  const random = randomFrom(seed);
  const expectThat = (right: boolean, problem: () => string) => {
    if (!right && problems.length < maxProblems) problems.push(problem());
  };
  const create = async () => {
    const person = next();
    const outcome = await db.insertPessoa({ id: idOf(person.apelido), ...person });
    expectThat(outcome === "created", () => `${person.apelido} is ${outcome}`);
  };
  const read = async () => {
    const { apelido } = random.pick(all.sample);
    const text = await db.findPessoa(idOf(apelido));
    expectThat(text?.includes(JSON.stringify(apelido)) === true, () => `${apelido} is not there`);
  };
  const count = async () => {
    const counted = await db.countPessoas();
    expectThat(counted === all.size(), () => `the count is ${counted}, not ${all.size()}`);
  };
  const search = (make: () => Search) => async () => {
    const { term, hits, finds } = make();
    const found = (await db.searchPessoas(term)).map((text) => JSON.parse(text) as Pessoa);
    const asked = JSON.stringify(term);
    expectThat(
      found.every((person) => holds(person, term)),
      () => `${asked} found a person without it`,
    );
    expectThat(
      hits === undefined || found.length === Math.min(hits, maxHits),
      () => `${asked} found ${found.length}, not ${hits}`,
    );
    expectThat(
      finds === undefined || found.length === maxHits || found.some(({ apelido }) => apelido === finds),
      () => `${asked} did not find ${finds}`,
    );
    return found.length;
  };
  type Operation = [name: string, lanes: number, run: () => Promise<number | undefined>];
  const operations: Operation[] = [
    ["create", 1, async () => void (await create())],
    [`create, ${together} at once`, together, async () => void (await create())],
    ["read", 1, async () => void (await read())],
    ["count", 1, async () => void (await count())],
  ];
  return [
    ...operations,
    ...Object.entries(searches(all, seed)).map(([name, make]): Operation => [name, 1, search(make)]),
  ];
}

async function measure(
  run: () => Promise<number | undefined>,
  lanes: number,
  { samples, seconds }: Options,
  cpuS: () => number | undefined,
  finish: () => Promise<void> = async () => {},
): Promise<Cost> {
  for (let i = 0; i < warmUps; i++) await run();
  const latencies: number[] = [];
  const hits: number[] = [];
  const ends = performance.now() + seconds * 1000;
  let left = samples * (lanes > 1 ? 2 : 1);
  const before = cpuS();
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      do {
        left--;
        const started = performance.now();
        const found = await run();
        latencies.push(performance.now() - started);
        if (found !== undefined) hits.push(found);
      } while (left > 0 && performance.now() < ends);
    }),
  );
  await finish();
  const after = cpuS();
  const sorted = latencies.toSorted((a, b) => a - b);
  return {
    samples: sorted.length,
    p50: percentile(sorted, 50),
    p99: percentile(sorted, 99),
    max: percentile(sorted, 100),
    cpuMs: before === undefined || after === undefined ? null : ((after - before) * 1000) / sorted.length,
    hits: hits.length > 0 ? hits.reduce((sum, n) => sum + n, 0) / hits.length : null,
  };
}

/** Rejects a database with persons of another seed: its count would fit, but every answer would be wrong. */
async function expectKnown(sql: postgres.Sql, all: Crowd): Promise<void> {
  const ids = all.sample.slice(0, 100).map(({ apelido }) => idOf(apelido));
  const [row] = await sql<{ n: string }[]>`select count(*) as n from pessoas where id in ${sql(ids)}`;
  if (Number(row?.n) === ids.length) return;
  throw new RangeError(
    "the database holds persons already: expected an empty one, or one that a run with this --seed filled",
  );
}

/** On Citus no person is in memory. */
async function copy(sql: postgres.Sql, persons: number, next: () => Pessoa, citus: boolean): Promise<void> {
  const terms = await sql.unsafe<{ term: string }[]>(completeTermsStatement);
  const inMemory = await sql<{ stack: string[] | null }[]>`select stack from pessoas where busca is null`;
  const made = function* () {
    for (let i = 0; i < persons; i++) yield next();
  };
  const there = {
    stacks: inMemory.map(({ stack }) => stack),
    ...(citus ? { maxInMemory: 0 } : {}),
    completeTerms: terms.map(({ term }) => term),
  };
  await store((table, lines) => copyInto(sql, table, lines), made(), there);
}

async function copyInto(sql: postgres.Sql, table: string, lines: Iterable<string>): Promise<void> {
  // Joined, because a stream is slow with many short texts.
  const thousands = function* () {
    const some: string[] = [];
    for (const line of lines) if (some.push(line) === 1000) yield some.splice(0).join("");
    yield some.join("");
  };
  await pipeline(thousands, await sql.unsafe(`copy ${table} from stdin`).writable());
}

/** On Citus the rows are on the workers, so its own functions add up their sizes. */
async function bytesOf(sql: postgres.Sql, citus: boolean): Promise<Pick<Size, "tableBytes" | "indexBytes">> {
  const ask = async (what: "table" | "relation" | "total_relation", name: string) => {
    const [row] = await sql.unsafe<{ bytes: string }[]>(
      `select ${citus ? "citus" : "pg"}_${what}_size('${name}') as bytes`,
    );
    return Number(row?.bytes);
  };
  const indexes = await sql<{ name: string }[]>`
    select indexrelid::regclass::text as name from pg_index where indrelid = 'pessoas'::regclass order by 1`;
  const indexBytes: Record<string, number> = {};
  for (const { name } of indexes) indexBytes[name] = await ask("relation", name);
  indexBytes.short_terms = await ask("total_relation", "short_terms");
  return { tableBytes: await ask("table", "pessoas"), indexBytes };
}

/**
 * Reads the CPU-seconds of all processes of the server behind `sql`, with Citus of all its nodes. Processes that have
 * ended are included. Undefined if the processes are on another machine, in a container, or not on Linux.
 */
async function postgresCpu(sql: postgres.Sql, citus: boolean): Promise<() => number | undefined> {
  const stat = (pid: number | string) => {
    try {
      const [, name, rest = ""] =
        /^\d+ \((.*)\) (.*)$/s.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
      const fields = rest.split(" ").map(Number); // from the third on
      return {
        name,
        parent: fields[1] as number,
        ended: ((fields[13] as number) + (fields[14] as number)) / 100,
      };
    } catch {
      return undefined; // it has ended
    }
  };
  const running = (pid: number | string) => {
    try {
      return Number(readFileSync(`/proc/${pid}/schedstat`, "utf8").split(" ")[0]) / 1e9;
    } catch {
      return 0;
    }
  };
  const pids = "select string_agg(pid::text, ',') from pg_stat_activity";
  const nodes = citus ? `select result from run_command_on_all_nodes($$${pids}$$) union all (${pids})` : pids;
  const lists = await sql.unsafe<{ result: string }[]>(`select result from (${nodes}) as nodes (result)`);
  const found = lists.map(({ result }) => postmasterOf(result.split(",")));
  if (found.some((pid) => pid === undefined)) return () => undefined;
  const postmasters = new Set(found as number[]);
  return () => {
    const ended = [...postmasters].map((pid) => stat(pid)?.ended);
    if (ended.some((seconds) => seconds === undefined)) return undefined;
    const isTheirs = (pid: string) => postmasters.has(stat(pid)?.parent ?? 0);
    const alive = [
      ...postmasters,
      ...readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && isTheirs(pid)),
    ];
    return [...alive.map(running), ...(ended as number[])].reduce((sum, seconds) => sum + seconds, 0);
  };

  /** The parent of these processes, of which some may have ended. Undefined if it is not a Postgres of this machine. */
  function postmasterOf(children: string[]): number | undefined {
    const there = children.flatMap((pid) => stat(pid) ?? []);
    const [parent, ...others] = new Set(there.map(({ name, parent }) => (name === "postgres" ? parent : 0)));
    return parent && others.length === 0 && stat(parent)?.name === "postgres" ? parent : undefined;
  }
}

function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/** The tables of costs and of space, each with its heading first. */
function tablesOf({ sizes }: Growth): { costs: string[][]; space: string[][] } {
  const first = sizes[0] as Size;
  const last = sizes.at(-1) as Size;
  const times = (a: number | null | undefined, b: number | null | undefined) =>
    a && b && first !== last ? `×${(a / b).toFixed(1)}` : "";
  const heads = sizes.map(({ persons }) => number(persons));
  const each = (cell: (size: Size) => string) => sizes.map(cell);
  return {
    costs: [
      ["ms: p50 / p99 / CPU", ...heads, "p50", "CPU"],
      ...Object.entries(last.operations).map(([name, { p50, cpuMs }]) => [
        name,
        ...each(({ operations }) => {
          const cost = operations[name] as Cost;
          return [cost.p50, cost.p99, cost.cpuMs].map(milliseconds).join(" / ");
        }),
        times(p50, first.operations[name]?.p50),
        times(cpuMs, first.operations[name]?.cpuMs),
      ]),
    ],
    space: [
      ["MB", ...heads],
      ["table", ...each(({ tableBytes }) => megabytes(tableBytes))],
      ...Object.keys(last.indexBytes).map((name) => [
        name,
        ...each(({ indexBytes }) => megabytes(indexBytes[name] ?? 0)),
      ]),
      ["COPY, rows per s", ...each(({ copiedPerSecond: rows }) => (rows === null ? "–" : number(rows)))],
    ],
  };
}

function render(growth: Growth): string {
  const { costs, space } = tablesOf(growth);
  return [
    `${growth.server}, one client, without a cache; CPU is Postgres'`,
    "",
    ...table(costs),
    "",
    ...table(space),
    ...growth.problems.map((problem) => `WRONG: ${problem}`),
  ].join("\n");
}

/**
 * An extrapolation to 10, 100 and 1,000 times the last size: each factor of ten multiplies the cost as the last one
 * did. The cost is Postgres' CPU of each operation in ms (p50 if CPU is unknown), and the space. Undefined for one size.
 */
function outlookOf({ sizes }: Growth): string[][] | undefined {
  const [before, last] = sizes.slice(-2);
  if (!before || !last) return undefined;
  const decades = Math.log10(last.persons / before.persons);
  const bytes = (size: Size) =>
    size.tableBytes + Object.values(size.indexBytes).reduce((sum, own) => sum + own, 0);
  const ahead = (then: number, now: number) => {
    const factor = Math.max(1, (now / then) ** (1 / decades)); // less than 1 is noise
    return [1, 2, 3].map((power) => now * factor ** power);
  };
  // The difference of two sizes, because an empty database already has some bytes.
  const bytesOfOne = (bytes(last) - bytes(before)) / (last.persons - before.persons);
  const bytesAt = (persons: number) => bytes(last) + (persons - last.persons) * bytesOfOne;
  const further = [10, 100, 1000].map((times) => last.persons * times);
  const gigabytes = (value: number) => number(Math.round(value / 1e9));
  return [
    ["CPU, ms", ...further.map(number)],
    ...Object.entries(last.operations).map(([name, now]) => {
      const then = before.operations[name] ?? now;
      return [name, ...ahead(then.cpuMs ?? then.p50, now.cpuMs ?? now.p50).map(milliseconds)];
    }),
    ["table and indexes, GB", ...further.map((persons) => gigabytes(bytesAt(persons)))],
  ];
}

/** All tables for a document. */
export function renderMarkdown(growth: Growth): string {
  const { costs, space } = tablesOf(growth);
  const outlook = outlookOf(growth);
  const markdown = ([head = [], ...rows]: string[][]) =>
    [head, head.map((_, column) => (column === 0 ? "---" : "---:")), ...rows]
      .map((cells) => `| ${cells.join(" | ")} |\n`)
      .join("");
  return [costs, space, ...(outlook ? [outlook] : [])].map(markdown).join("\n");
}

/** A panel for each operation. */
function costChart({ sizes }: Growth): Chart {
  const kinds = [
    { name: "p50", width: 2.5, type: "solid", of: (cost: Cost) => cost.p50 },
    { name: "p99", width: 1.5, type: "dotted", of: (cost: Cost) => cost.p99 },
    { name: "Postgres' CPU", width: 1.5, type: "dashed", of: (cost: Cost) => cost.cpuMs },
  ] as const;
  const all = sizes.flatMap(({ operations }) =>
    Object.values(operations).flatMap((cost) => kinds.flatMap(({ of }) => of(cost) ?? [])),
  );
  const persons = sizes.map((size) => size.persons);
  return panels({
    id: "growth",
    title: "Milliseconds for one, by number of persons",
    note: "Each line up is ten times slower, each to the right ten times as many persons.",
    lines: kinds.map(({ of, ...line }) => line),
    scale: decadesOf(all),
    layout: () => ({ columns: 4, panelHeight: 176 }),
    xAxis: () => ({
      type: "log",
      min: Math.min(...persons),
      max: Math.max(...persons, Math.min(...persons) * 10),
      axisLabel: { ...text, formatter: abbreviate, hideOverlap: true },
      axisTick: { show: false },
      axisLine: { lineStyle: { color: paint.line } },
      splitLine: { show: false },
    }),
    charts: Object.keys(sizes[0]?.operations ?? {}).map((name) => ({
      name,
      series: kinds.map((kind, index) => {
        const color = paint.series[index] as string;
        return {
          type: "line",
          name: kind.name,
          data: sizes.map(({ persons, operations }) => [persons, kind.of(operations[name] as Cost) ?? "-"]),
          symbol: "circle",
          symbolSize: 4,
          itemStyle: { color },
          lineStyle: { color, width: kind.width, type: kind.type },
        };
      }),
    })),
  });
}

/** 10k, 3M */
function abbreviate(value: number): string {
  return value >= 1e6 ? `${short(value / 1e6)}M` : value >= 1e3 ? `${short(value / 1e3)}k` : short(value);
}

async function main(): Promise<void> {
  const values = readArguments(usage, {
    to: { type: "string", default: "1m" },
    samples: { type: "string", default: "400" },
    seconds: { type: "string", default: "10" },
    seed: { type: "string", default: "1" },
    data: { type: "string" },
    out: { type: "string" },
    json: { type: "boolean", default: false },
  });
  const to = personsOf("to", values.to, 1e4, 1e9);
  const options = {
    sizes: [1e4, 1e5, 1e6, 1e7, 1e8].filter((size) => size < to).concat(to),
    samples: numberOf("samples", values.samples, 1, 1e6),
    seconds: numberOf("seconds", values.seconds, 0.1, 3600),
    seed: wholeOf("seed", values.seed, 0, 2 ** 31),
  };
  const { DATABASE_URL: given } = process.env;
  if (given && values.data)
    throw new RangeError(
      "--data: expected no DATABASE_URL, because only the embedded database has a data folder",
    );

  const folder = given ? undefined : (values.data ?? (await mkdtemp(join(tmpdir(), "pessoas-growth-"))));
  const embedded = folder === undefined ? undefined : await startEmbedded(folder, () => {});
  const leave = async () => {
    await embedded?.stop();
    if (folder && !values.data) await rm(folder, { recursive: true, force: true });
  };
  onSignals(leave);
  let growth: Growth;
  try {
    growth = await grow(given || (embedded?.url as string), options, (line) => console.error(line));
  } finally {
    await leave();
  }

  const name = `growth-${growth.at.replaceAll(/\W/g, "").slice(0, 15)}`;
  const out = values.out ?? join(import.meta.dir, "user-files", "results", name);
  await mkdir(out, { recursive: true });
  const json = JSON.stringify(growth, null, 2);
  await Bun.write(join(out, "growth.json"), `${json}\n`);
  await Bun.write(join(out, "growth.md"), renderMarkdown(growth));
  await Bun.write(join(out, "growth.svg"), pictureOf(costChart(growth), 1000));
  console.log(values.json ? json : render(growth));
  console.error(`\n${nameMachine(growth.machine)}; pictures and numbers: ${out}`);
  if (growth.problems.length > 0) process.exitCode = 1;
}

if (import.meta.main) await runScript(main);
