import { existsSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import {
  expectAnswers,
  expectedFor,
  type Pessoa,
  type Row,
  readColumn,
  readPessoa,
} from "../data/contract.ts";
import { payloadsFile, termsFile } from "../generate.ts";
import type { Sample } from "./usage.ts";

const usage = `Usage: verdict.ts [OPTIONS] RESULTS_DIR

Judges a finished run: the count against the maximum for the creates that were sent, failed requests, every
person that got 201 read back, searches against what is stored, latencies, and CPU and memory per service.
Reads simulation.log, created.tsv and (if there) usage.jsonl in RESULTS_DIR; prints one screen, writes
verdict.json. Exit code: 0 passed, 1 failed, 2 could not be judged.

  --data DIR         folder of ${payloadsFile} and ${termsFile} of the run (needed)
  --base-url URL     the registry (default http://127.0.0.1:9999)
  --count-before N   persons stored before the run (default 0)
  --sample N         read back only N persons, spread evenly (default: all that got 201)
  --searches N       searches to check, half of them terms of the run and half pieces of persons
                     (default 100; none when persons were stored before the run)
  --against FILE     verdict.json of another run: prints this run as multiples of that one
  --json FILE        where to write (default RESULTS_DIR/verdict.json)
  -h, --help         this text`;

/** Milliseconds; percentiles by nearest rank over all answers, failed ones included. */
export type Latency = {
  requests: number;
  failed: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
};

export type Failure = { request: string; message: string; times: number; example: string };

export type ServiceUse = {
  userS: number;
  systemS: number;
  throttledS: number;
  peakBytes: number;
  peakWorkingSetBytes: number;
  cpuLimit: number | null;
  memoryLimitBytes: number | null;
  restarts: number;
};

export type Verdict = {
  passed: boolean;
  /** Why it failed, one sentence each; the first 1,000. */
  problems: string[];
  at: string;
  description: string;
  baseUrl: string;
  machine: { cpus: number; model: string; memoryBytes: number; kernel: string };
  seconds: number;
  creates: number;
  count: { before: number; after: number; stored: number; maximum: number; answered201: number };
  requests: Record<string, Latency>;
  failures: Failure[];
  readBack: { persons: number; lost: number; changed: number; unreadable: number };
  searches: { checked: number; wrong: number };
  services: Record<string, ServiceUse>;
  /** The most that all services had at one moment; null where it was not sampled. Older files lack it. */
  peakWorkingSetBytes?: number | null;
  requestsPerCpuSecond: number | null;
};

/** One request: when it was sent (ms since 1970), how long its answer took, and whether that was a wrong one or none. */
export type Timed = { kind: string; startMs: number; ms: number; failed: boolean };

/** What simulation.log tells. Times in ms. */
export type Log = {
  description: string;
  startMs: number;
  endMs: number;
  requests: Timed[];
  latencies: Map<string, number[]>;
  failures: Failure[];
  failed: Map<string, number>;
  /** Messages of users that crashed before they could send. */
  errors: string[];
};

/** Reads the text of Gatling 3.9's simulation.log. */
export function readLog(text: string): Log {
  const log: Log = {
    description: "",
    startMs: 0,
    endMs: 0,
    requests: [],
    latencies: new Map(),
    failures: [],
    failed: new Map(),
    errors: [],
  };
  const failures = new Map<string, Failure>();
  for (const line of text.split("\n")) {
    const [kind, ...fields] = line.split("\t");
    if (kind === "RUN") {
      log.startMs = Number(fields[2]);
      log.description = (fields[3] ?? "").trim();
    } else if (kind === "REQUEST") {
      const [, name = "", start, end, answer, message = ""] = fields;
      const latencies = log.latencies.get(name);
      const ms = Number(end) - Number(start);
      if (latencies) latencies.push(ms);
      else log.latencies.set(name, [ms]);
      log.requests.push({ kind: name, startMs: Number(start), ms, failed: answer !== "OK" });
      log.endMs = Math.max(log.endMs, Number(end));
      if (answer === "OK") continue;
      log.failed.set(name, (log.failed.get(name) ?? 0) + 1);
      const short = kindOfFailure(message);
      const known = failures.get(`${name}\t${short}`);
      if (known) known.times++;
      else
        failures.set(`${name}\t${short}`, {
          request: name,
          message: short,
          times: 1,
          example: message.trim(),
        });
    } else if (kind === "ERROR") {
      log.errors.push(fields[0] ?? "");
    }
  }
  log.failures = [...failures.values()].sort((a, b) => b.times - a.times);
  return log;
}

/** The message without what differs from one request to the next, so that like failures add up. */
function kindOfFailure(message: string): string {
  return message
    .replace(/(bodyString.*?found )/, "")
    .replace(/: (.*[{[<"].*)$/s, "")
    .replace(/ the term .*$/s, " the term")
    .trim();
}

/** The value at nearest rank. `sorted` ascending and not empty; `p` from 0 to 100. */
export function percentile(sorted: readonly number[], p: number): number {
  const rank = Math.max(1, Math.ceil((p / 100) * sorted.length));
  const value = sorted[rank - 1];
  if (value === undefined) throw new RangeError(`no value at rank ${rank} of ${sorted.length}`);
  return value;
}

/**
 * What each service used between the first sample and the last. Counters that fall mean that the container
 * started again: what it used before the fall is kept, as far as it was sampled.
 */
export function sumUsage(samples: readonly Sample[]): Record<string, ServiceUse> {
  const names = new Set(samples.flatMap((sample) => Object.keys(sample.services)));
  const uses: Record<string, ServiceUse> = {};
  for (const name of names) {
    const own = samples.flatMap((sample) => sample.services[name] ?? []);
    let [userS, systemS, throttledS, restarts] = [0, 0, 0, 0];
    own.slice(1).forEach((now, index) => {
      const before = own[index];
      if (!before) return;
      const restarted = now.userS + now.systemS < before.userS + before.systemS;
      if (restarted) restarts++;
      userS += now.userS - (restarted ? 0 : before.userS);
      systemS += now.systemS - (restarted ? 0 : before.systemS);
      throttledS += now.throttledS - (restarted ? 0 : before.throttledS);
    });
    uses[name] = {
      userS: round(userS, 3),
      systemS: round(systemS, 3),
      throttledS: round(throttledS, 3),
      peakBytes: Math.max(...own.map((use) => use.peakBytes ?? use.memoryBytes)),
      peakWorkingSetBytes: Math.max(...own.map((use) => use.workingSetBytes)),
      cpuLimit: own[0]?.cpuLimit ?? null,
      memoryLimitBytes: own[0]?.memoryLimitBytes ?? null,
      restarts,
    };
  }
  return uses;
}

/** The most that all services together had at one moment; null for no samples. */
export function peakOfAll(samples: readonly Sample[]): number | null {
  const sums = samples.map(({ services }) =>
    Object.values(services).reduce((sum, use) => sum + use.workingSetBytes, 0),
  );
  return sums.length === 0 ? null : Math.max(...sums);
}

/** One line of created.tsv: the payload of row `row` (from 0) got 201 with this Location. */
export type Created = { row: number; location: string };

/** Sentences on 201s that cannot be right, given the rows and that the first `sent` of them were sent. */
export function judgeCreated(rows: readonly Row[], created: readonly Created[], sent: number): string[] {
  const problems: string[] = [];
  const owners = new Map<string, number>();
  for (const { row, location } of created) {
    const payload = rows[row]?.payload;
    const pessoa = payload === undefined || row >= sent ? undefined : readPessoa(payload);
    if (typeof pessoa !== "object") {
      problems.push(`row ${row} got 201 and a Location (${location}) but is not a valid person of this run`);
      continue;
    }
    const owner = owners.get(pessoa.apelido);
    if (owner !== undefined) problems.push(`"${pessoa.apelido}" got 201 twice, for rows ${owner} and ${row}`);
    owners.set(pessoa.apelido, row);
  }
  rows.slice(0, sent).forEach(({ payload, status }, row) => {
    if (status !== 201) return;
    const pessoa = readPessoa(payload);
    if (typeof pessoa === "object" && !owners.has(pessoa.apelido)) {
      problems.push(`"${pessoa.apelido}" (row ${row}) is valid and never got 201`);
    }
  });
  return problems;
}

/** A person that got 201 with this Location, and the id in it. */
export type Stored = Pessoa & { id: string; location: string };

/** True when `got` holds exactly the members of the person, with the values that were sent. */
export function isSame(
  got: unknown,
  { id, apelido, nome, nascimento, stack }: Omit<Stored, "location">,
): boolean {
  if (typeof got !== "object" || got === null || Object.keys(got).length !== 5) return false;
  const body = got as Record<string, unknown>;
  return (
    typeof body.id === "string" &&
    body.id.toLowerCase() === id.toLowerCase() &&
    body.apelido === apelido &&
    body.nome === nome &&
    body.nascimento === nascimento &&
    JSON.stringify(body.stack) === JSON.stringify(stack)
  );
}

/** Reads every one of the persons back, and says in `problems` who is not there as it was sent. */
export async function readBack(baseUrl: string, persons: readonly Stored[], problems: string[]) {
  const found = { persons: persons.length, lost: 0, changed: 0, unreadable: 0 };
  await inParallel(16, "reading persons back", persons, async (person) => {
    const { status, body } = await get(baseUrl, person.location);
    if (status === 404) {
      found.lost++;
      problems.push(`lost: "${person.apelido}" got 201, ${person.location} now answers 404`);
    } else if (status !== 200) {
      found.unreadable++;
      problems.push(`unreadable: ${person.location} answers ${status || body}`);
    } else if (!isSame(parse(body), person)) {
      found.changed++;
      problems.push(`changed: "${person.apelido}" is now ${brief(body)}`);
    }
  });
  return found;
}

/** Searches that find too little go unseen while persons arrive; afterwards the right answer is known. */
async function checkSearches(
  baseUrl: string,
  stored: readonly Stored[],
  terms: string[],
  problems: string[],
) {
  const maxHits = 50;
  // Generated fields and terms hold no newline, so that no term matches across two fields.
  const texts = stored.map(({ apelido, nome, stack }) =>
    [apelido, nome, ...(stack ?? [])].join("\n").toLowerCase(),
  );
  const found = { checked: terms.length, wrong: 0 };
  await inParallel(4, "checking searches", terms, async (term) => {
    const lower = term.toLowerCase();
    const matches = new Map(
      stored
        .filter((_, index) => texts[index]?.includes(lower))
        .map((person) => [person.id.toLowerCase(), person]),
    );
    const { status, body } = await get(baseUrl, `/pessoas?t=${encodeURIComponent(term)}`);
    const hits = status === 200 ? parse(body) : undefined;
    const expected = Math.min(maxHits, matches.size);
    let fault = "";
    if (!Array.isArray(hits)) fault = `answers ${status || ""} ${brief(body)}`;
    else if (hits.length !== expected) fault = `gives ${hits.length} persons, not ${expected}`;
    else {
      for (const hit of hits) {
        const id = String((hit as { id?: unknown } | null)?.id).toLowerCase();
        const person = matches.get(id);
        if (!person || !isSame(hit, person))
          fault = `gives a person who does not match: ${brief(JSON.stringify(hit))}`;
        matches.delete(id); // the same person twice is a fault as well
      }
    }
    if (fault === "") return;
    found.wrong++;
    problems.push(`search: "${term}" ${fault}`);
  });
  return found;
}

/** Terms of the run, and pieces of persons in another case, which have to be found. */
function pickTerms(terms: readonly string[], stored: readonly Stored[], n: number): string[] {
  const pieces = spread(stored, Math.ceil(n / 2)).map(({ apelido, nome, stack }, index) => {
    const field = [apelido, nome, stack?.at(-1) ?? nome][index % 3] ?? apelido;
    const piece = field.slice(0, 8);
    return index % 2 === 0 ? piece.toUpperCase() : piece.toLowerCase();
  });
  return [...spread(terms, Math.floor(n / 2)), ...pieces.filter((piece) => piece.trim() !== "")];
}

/** At most `n` of the items, evenly spread over all of them. */
export function spread<T>(items: readonly T[], n: number): T[] {
  if (items.length <= n) return [...items];
  return Array.from({ length: n }, (_, index) => items[Math.floor((index * items.length) / n)] as T);
}

/**
 * Writers behind the answers may lag: the count is taken once it stood still for two polls. Throws when the
 * answer is not a number.
 */
export async function settledCount(baseUrl: string, pollMs: number): Promise<number> {
  let [last, still] = [-1, 0];
  for (let polls = 0; polls < 60 && still < 2; polls++) {
    const { status, body } = await get(baseUrl, "/contagem-pessoas");
    if (status !== 200 || !/^[0-9]+$/.test(body.trim())) {
      throw new Error(`GET /contagem-pessoas answers ${status || ""} ${brief(body)}`);
    }
    still = Number(body) === last ? still + 1 : 0;
    last = Number(body);
    if (still < 2) await Bun.sleep(pollMs);
  }
  return last;
}

/** Status and body; status 0 and the reason when there is no answer. 503 and no answer are asked again. */
async function get(baseUrl: string, path: string): Promise<{ status: number; body: string }> {
  for (let attempt = 1; ; attempt++) {
    let answer = { status: 0, body: "" };
    try {
      const response = await fetch(new URL(path, baseUrl), { signal: AbortSignal.timeout(20_000) });
      answer = { status: response.status, body: await response.text() };
    } catch (error) {
      answer.body = error instanceof Error ? error.message : String(error);
    }
    if ((answer.status !== 0 && answer.status !== 503) || attempt === 4) return answer;
    await Bun.sleep(500 * attempt);
  }
}

/** Works on the items, `width` at a time. Progress goes to standard error, where that is a terminal. */
export async function inParallel<T>(
  width: number,
  label: string,
  items: readonly T[],
  work: (item: T) => Promise<void>,
) {
  let next = 0;
  const worker = async () => {
    for (let item = items[next++]; item !== undefined; item = items[next++]) {
      await work(item);
      if (process.stderr.isTTY && next % 100 === 0)
        process.stderr.write(`\r${label}: ${next} of ${items.length} `);
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  if (process.stderr.isTTY) process.stderr.write(`\r${" ".repeat(60)}\r`);
}

/** The JSON value, undefined when `text` is not JSON. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Short enough for a line. */
export function brief(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 120)}...`;
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

type Options = {
  results: string;
  data: string;
  baseUrl: string;
  countBefore: number;
  /** How many persons to read back, all when undefined, and how many searches to check. */
  sample: number | undefined;
  searches: number;
  /** Pause between two looks at the count. */
  pollMs?: number;
};

/** Judges the run in `results` against the registry as it stands now. Throws when it cannot be judged. */
export async function judge(options: Options): Promise<Verdict> {
  const { results, data, baseUrl, countBefore, sample } = options;
  const log = readLog(await Bun.file(join(results, "simulation.log")).text());
  const creates = log.latencies.get("create")?.length ?? 0;
  if (creates === 0) throw new Error(`no create was sent, according to ${join(results, "simulation.log")}`);
  const rows = expectAnswers(readColumn(await Bun.file(join(data, payloadsFile)).text()));
  const terms = readColumn(await Bun.file(join(data, termsFile)).text());
  const maximum = expectedFor(rows, creates)[201];
  const created = readCreated(await Bun.file(join(results, "created.tsv")).text());
  const usageFile = join(results, "usage.jsonl");
  const samples = existsSync(usageFile) ? readSamples(await Bun.file(usageFile).text()) : [];
  const services = sumUsage(samples);

  const problems: string[] = [];
  const failed = [...log.failed.values()].reduce((sum, times) => sum + times, 0);
  if (failed > 0) problems.push(`${number(failed)} requests failed`);
  if (log.errors.length > 0) problems.push(`${log.errors.length} users crashed: ${log.errors[0]}`);

  const after = await settledCount(baseUrl, options.pollMs ?? 1000);
  if (after - countBefore !== maximum) {
    problems.push(`count: ${number(after - countBefore)} persons stored, ${number(maximum)} expected`);
  }
  problems.push(...judgeCreated(rows, created, creates));

  const stored = created.flatMap(({ row, location }): Stored[] => {
    const pessoa = readPessoa(rows[row]?.payload ?? "");
    return typeof pessoa === "object" ? [{ ...pessoa, location, id: location.split("/").at(-1) ?? "" }] : [];
  });
  const persons = await readBack(baseUrl, sample === undefined ? stored : spread(stored, sample), problems);
  // With persons from before the run nobody knows what a search has to find.
  const searchTerms = countBefore === 0 ? pickTerms(terms, stored, options.searches) : [];
  const searches = await checkSearches(baseUrl, stored, searchTerms, problems);

  const total = [...log.latencies.values()].reduce((sum, { length }) => sum + length, 0);
  const cpuS = Object.values(services).reduce((sum, { userS, systemS }) => sum + userS + systemS, 0);
  return {
    passed: problems.length === 0,
    problems: problems.slice(0, 1000),
    at: new Date(log.startMs).toISOString(),
    description: log.description,
    baseUrl,
    machine: describeMachine(),
    seconds: round((log.endMs - log.startMs) / 1000, 1),
    creates,
    count: { before: countBefore, after, stored: after - countBefore, maximum, answered201: created.length },
    requests: Object.fromEntries(
      [...log.latencies]
        .sort()
        .map(([name, latencies]) => [name, summarise(latencies, log.failed.get(name) ?? 0)]),
    ),
    failures: log.failures,
    readBack: persons,
    searches,
    services,
    peakWorkingSetBytes: peakOfAll(samples),
    requestsPerCpuSecond: cpuS > 0 ? round(total / cpuS, 1) : null,
  };
}

/** This machine, as a verdict names it. */
export function describeMachine(): Verdict["machine"] {
  return {
    cpus: cpus().length,
    model: cpus()[0]?.model.trim() ?? "",
    memoryBytes: totalmem(),
    kernel: release(),
  };
}

/** `latencies` in ms, in any order and not none. */
export function summarise(latencies: readonly number[], failed: number): Latency {
  const sorted = latencies.toSorted((a, b) => a - b);
  const [p50, p95, p99] = [percentile(sorted, 50), percentile(sorted, 95), percentile(sorted, 99)];
  return { requests: sorted.length, failed, p50, p95, p99, max: percentile(sorted, 100) };
}

function readCreated(text: string): Created[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const [row, location = ""] = line.split("\t");
    return { row: Number(row), location };
  });
}

/** The text of usage.jsonl. */
export function readSamples(text: string): Sample[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as Sample);
}

/** One screen. With `against`, each number is followed by its multiple of the other run's. */
export function render(verdict: Verdict, against?: Verdict, color = false): string {
  const paint = (code: number, text: string) => (color ? `\x1b[${code}m${text}\x1b[0m` : text);
  const { count, readBack, searches, services, requests, machine } = verdict;
  const total = sumLatency(Object.values(requests));
  const lines = [
    `${paint(verdict.passed ? 32 : 31, verdict.passed ? "PASSED" : "FAILED")}  ${verdict.description}`,
    `${verdict.at}, ${verdict.seconds} s against ${verdict.baseUrl}, on ${machine.cpus} CPUs (${machine.model})`,
    ...(against ? [`×: multiples of the run of ${against.at} (${against.description})`] : []),
    "",
    `count      ${number(count.stored)} of ${number(count.maximum)} persons, ` +
      `${number(verdict.creates)} creates sent, ${number(count.answered201)} answered 201`,
    `failed     ${number(total.failed)} of ${number(total.requests)} requests`,
    `read back  ${number(readBack.persons)} persons: ${readBack.lost} lost, ${readBack.changed} changed, ` +
      `${readBack.unreadable} unreadable; ${searches.checked} searches: ${searches.wrong} wrong`,
    "",
  ];

  const latencyRows = Object.entries(requests).map(([name, now]) => {
    const then = against?.requests[name];
    const ms = (key: "p50" | "p95" | "p99" | "max") => compared(number(now[key]), now[key], then?.[key]);
    return [name, number(now.requests), number(now.failed), ms("p50"), ms("p95"), ms("p99"), ms("max")];
  });
  lines.push(...table([["ms", "requests", "failed", "p50", "p95", "p99", "max"], ...latencyRows]), "");

  const used = Object.entries(services).map(([name, now]): [string, ServiceUse, ServiceUse | undefined] => [
    name,
    now,
    against?.services[name],
  ]);
  if (used.length > 0) {
    used.push(["total", sumUse(verdict), against ? sumUse(against) : undefined]);
    const useRows = used.map(([name, now, then]) => [
      now.restarts > 0 ? `${name} (restarted)` : name,
      compared(now.userS.toFixed(2), now.userS, then?.userS),
      compared(now.systemS.toFixed(2), now.systemS, then?.systemS),
      compared(now.throttledS.toFixed(2), now.throttledS, then?.throttledS),
      compared(mebibytes(now.peakBytes), now.peakBytes, then?.peakBytes),
      compared(mebibytes(now.peakWorkingSetBytes), now.peakWorkingSetBytes, then?.peakWorkingSetBytes),
    ]);
    lines.push(
      ...table([["CPU-seconds", "user", "system", "throttled", "peak MiB", "without cache"], ...useRows]),
      "",
    );
  }
  if (verdict.requestsPerCpuSecond !== null) {
    const now = verdict.requestsPerCpuSecond;
    lines.push(
      `requests per CPU-second  ${compared(number(now), now, against?.requestsPerCpuSecond ?? undefined)}`,
      "",
    );
  }

  for (const { times, request, message, example } of verdict.failures.slice(0, 5)) {
    lines.push(paint(31, `${number(times)} × ${request}: ${message}`));
    if (brief(example) !== message)
      lines.push(`    ${example.length > 200 ? `${example.slice(0, 200)}...` : example}`);
  }
  if (verdict.failures.length > 5) lines.push(`and ${verdict.failures.length - 5} other kinds of failure`);
  for (const problem of verdict.problems.slice(0, 8)) lines.push(paint(31, problem));
  if (verdict.problems.length > 8)
    lines.push(`and ${number(verdict.problems.length - 8)} other problems: see the JSON`);
  return lines.join("\n").trimEnd();
}

function sumLatency(all: readonly Latency[]): Pick<Latency, "requests" | "failed"> {
  return {
    requests: all.reduce((sum, { requests }) => sum + requests, 0),
    failed: all.reduce((sum, { failed }) => sum + failed, 0),
  };
}

/** Of the peaks: those of all at one moment where that is known, else what they come to. */
function sumUse({ services, peakWorkingSetBytes }: Verdict): ServiceUse {
  const all = Object.values(services);
  const sum = (key: "userS" | "systemS" | "throttledS" | "peakBytes" | "peakWorkingSetBytes" | "restarts") =>
    all.reduce((total, use) => total + use[key], 0);
  return {
    userS: sum("userS"),
    systemS: sum("systemS"),
    throttledS: sum("throttledS"),
    peakBytes: sum("peakBytes"),
    peakWorkingSetBytes: peakWorkingSetBytes ?? sum("peakWorkingSetBytes"),
    cpuLimit: null,
    memoryLimitBytes: null,
    restarts: 0,
  };
}

function compared(text: string, now: number, then: number | undefined): string {
  if (then === undefined) return text;
  return `${text} ${ratio(now, then)}`;
}

/** "×0.83"; "×-" where the other is 0 and no multiple exists. */
function ratio(now: number, then: number): string {
  if (then === 0) return now === 0 ? "×1.00" : "×-";
  return `×${(now / then).toFixed(2)}`;
}

/** With a comma for every three digits. */
export function number(value: number): string {
  return value.toLocaleString("en-US");
}

/** MiB with one decimal. */
export function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

/** Lines with aligned columns: the first to the left, the others to the right. */
export function table(rows: readonly string[][]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("   "),
  );
}

/** This run's numbers as multiples of the other's; null where the other's is 0 or missing. */
export function compare(now: Verdict, then: Verdict) {
  const multiple = (a: number | null, b: number | null | undefined) =>
    a !== null && b ? round(a / b, 3) : null;
  return {
    requests: Object.fromEntries(
      Object.entries(now.requests).map(([name, { p50, p95, p99, max }]) => {
        const other = then.requests[name];
        return [
          name,
          {
            p50: multiple(p50, other?.p50),
            p95: multiple(p95, other?.p95),
            p99: multiple(p99, other?.p99),
            max: multiple(max, other?.max),
          },
        ];
      }),
    ),
    services: Object.fromEntries(
      Object.entries(now.services).map(([name, use]) => {
        const other = then.services[name];
        return [
          name,
          {
            userS: multiple(use.userS, other?.userS),
            systemS: multiple(use.systemS, other?.systemS),
            throttledS: multiple(use.throttledS, other?.throttledS),
            peakBytes: multiple(use.peakBytes, other?.peakBytes),
            peakWorkingSetBytes: multiple(use.peakWorkingSetBytes, other?.peakWorkingSetBytes),
          },
        ];
      }),
    ),
    requestsPerCpuSecond: multiple(now.requestsPerCpuSecond, then.requestsPerCpuSecond),
  };
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      data: { type: "string" },
      "base-url": { type: "string", default: "http://127.0.0.1:9999" },
      "count-before": { type: "string", default: "0" },
      sample: { type: "string" },
      searches: { type: "string", default: "100" },
      against: { type: "string" },
      json: { type: "string" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(usage);
  const [results] = positionals;
  if (results === undefined || positionals.length > 1)
    throw new RangeError("expected one RESULTS_DIR; see --help");
  if (values.data === undefined) throw new RangeError("--data: expected a folder; see --help");
  const whole = (name: string, value: string) => {
    if (/^[0-9]+$/.test(value)) return Number(value);
    throw new RangeError(`--${name}: expected a whole number, got "${value}"`);
  };
  // Read first: a wrong file name should not cost a whole verdict.
  const against =
    values.against === undefined ? undefined : ((await Bun.file(values.against).json()) as Verdict);
  if (against && (typeof against.requests !== "object" || typeof against.services !== "object")) {
    throw new RangeError(`--against: ${values.against} is not the JSON of a verdict`);
  }
  const verdict = await judge({
    results,
    data: values.data,
    baseUrl: values["base-url"],
    countBefore: whole("count-before", values["count-before"]),
    sample: values.sample === undefined ? undefined : whole("sample", values.sample),
    searches: whole("searches", values.searches),
  });
  const ratios = against && { against: { file: values.against, ...compare(verdict, against) } };
  const json = values.json ?? join(results, "verdict.json");
  await Bun.write(json, `${JSON.stringify({ ...verdict, ...ratios }, null, 2)}\n`);
  console.log(render(verdict, against, process.stdout.isTTY));
  if (!verdict.passed) process.exitCode = 1;
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(`verdict.ts: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}
