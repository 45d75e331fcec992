import { existsSync } from "node:fs";
import { join } from "node:path";
import { readArguments, runScript, wholeOf } from "../../tools/arguments.ts";
import { inParallel } from "../../tools/in-parallel.ts";
import { payloadsFile, termsFile } from "../data/payloads.ts";
import { expectAnswers, expectedFor, type Row, readColumn, readPessoa } from "../data/reference-contract.ts";
import { brief, get, isSame, parse, readBack, type Stored, settledCount, spread } from "./audit.ts";
import { mebibytes, number, table } from "./format.ts";
import { type Created, type Failure, readCreated, readLog } from "./gatling.ts";
import { describeMachine, type Machine } from "./machine.ts";
import { type Latency, round, summariseKinds } from "./statistics.ts";
import { peakOfAll, readSamples, type ServiceUse, sumUsage } from "./usage.ts";

const usage = `Usage: verdict.ts [OPTIONS] RESULTS_DIR

Judges a finished run. Compares the count with the maximum for the creates that were sent, every person with a
201 with what is read back, and 100 searches with the stored persons (none if persons were stored before the
run). Reports failed requests, latencies, and CPU and memory per service. Reads simulation.log, created.tsv and
usage.jsonl (if it exists) in RESULTS_DIR; prints one screen, and writes verdict.json.
Exit code: 0 passed, 1 failed, 2 could not be judged.

  --data DIR         folder of ${payloadsFile} and ${termsFile} of the run (needed)
  --base-url URL     the registry (default http://127.0.0.1:9999)
  --count-before N   persons stored before the run (default 0)
  --against FILE     verdict.json of another run: each number is followed by its ratio to that run's
  -h, --help         this text`;

export type Verdict = {
  passed: boolean;
  /** Why it failed, one sentence each; the first 1,000. */
  problems: string[];
  at: string;
  description: string;
  baseUrl: string;
  machine: Machine;
  seconds: number;
  creates: number;
  count: { before: number; after: number; stored: number; maximum: number; answered201: number };
  requests: Record<string, Latency>;
  failures: Failure[];
  readBack: { persons: number; lost: number; changed: number; unreadable: number };
  searches: { checked: number; wrong: number };
  services: Record<string, ServiceUse>;
  /** The highest sum of all services at one moment; null if it was not sampled. Older files do not have it. */
  peakWorkingSetBytes?: number | null;
  requestsPerCpuSecond: number | null;
};

/** A sentence for each wrong or missing 201 of the first `sent` rows. */
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

/** Compares searches with all stored persons. Call it after the run, because a create would change the hits. */
async function checkSearches(
  baseUrl: string,
  stored: readonly Stored[],
  terms: string[],
  problems: string[],
) {
  const maxHits = 50;
  // Generated fields and terms have no newline, so no term matches across two fields.
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
        matches.delete(id); // the same person twice is wrong, too
      }
    }
    if (fault === "") return;
    found.wrong++;
    problems.push(`search: "${term}" ${fault}`);
  });
  return found;
}

/** Half of the terms are the run's, half are pieces of stored persons in another case. */
function pickTerms(terms: readonly string[], stored: readonly Stored[], n: number): string[] {
  const pieces = spread(stored, Math.ceil(n / 2)).map(({ apelido, nome, stack }, index) => {
    const field = [apelido, nome, stack?.at(-1) ?? nome][index % 3] ?? apelido;
    const piece = field.slice(0, 8);
    return index % 2 === 0 ? piece.toUpperCase() : piece.toLowerCase();
  });
  return [...spread(terms, Math.floor(n / 2)), ...pieces.filter((piece) => piece.trim() !== "")];
}

type Options = {
  results: string;
  data: string;
  baseUrl: string;
  countBefore: number;
  /** Number of searches to check. */
  searches?: number;
  /** Pause between two polls of the count. */
  pollMs?: number;
};

/** Judges the run in `results` by the present state of the registry. Throws if it cannot be judged. */
export async function judge(options: Options): Promise<Verdict> {
  const { results, data, baseUrl, countBefore } = options;
  const log = readLog(await Bun.file(join(results, "simulation.log")).text());
  const requests = summariseKinds(log.requests);
  const creates = requests.create?.requests ?? 0;
  if (creates === 0) throw new Error(`no create was sent, according to ${join(results, "simulation.log")}`);
  const rows = expectAnswers(readColumn(await Bun.file(join(data, payloadsFile)).text()));
  const terms = readColumn(await Bun.file(join(data, termsFile)).text());
  const maximum = expectedFor(rows, creates)[201];
  const created = readCreated(await Bun.file(join(results, "created.tsv")).text());
  const usageFile = join(results, "usage.jsonl");
  const samples = existsSync(usageFile) ? readSamples(await Bun.file(usageFile).text()) : [];
  const services = sumUsage(samples);

  const problems: string[] = [];
  const failed = log.requests.filter((request) => request.failed).length;
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
  const persons = await readBack(baseUrl, stored, problems);
  // If persons were stored before the run, the right hits of a search are unknown.
  const searchTerms = countBefore === 0 ? pickTerms(terms, stored, options.searches ?? 100) : [];
  const searches = await checkSearches(baseUrl, stored, searchTerms, problems);

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
    requests,
    failures: log.failures,
    readBack: persons,
    searches,
    services,
    peakWorkingSetBytes: peakOfAll(samples),
    requestsPerCpuSecond: cpuS > 0 ? round(log.requests.length / cpuS, 1) : null,
  };
}

/** The verdict as text. With `against`, each number is followed by its ratio to the other run's. */
export function render(verdict: Verdict, against?: Verdict, color = false): string {
  const paint = (code: number, text: string) => (color ? `\x1b[${code}m${text}\x1b[0m` : text);
  const { count, readBack, searches, services, requests, machine } = verdict;
  const sum = (key: "requests" | "failed") =>
    Object.values(requests).reduce((total, latency) => total + latency[key], 0);
  const lines = [
    `${paint(verdict.passed ? 32 : 31, verdict.passed ? "PASSED" : "FAILED")}  ${verdict.description}`,
    `${verdict.at}, ${verdict.seconds} s against ${verdict.baseUrl}, on ${machine.cpus} CPUs (${machine.model})`,
    ...(against ? [`×: multiples of the run of ${against.at} (${against.description})`] : []),
    "",
    `count      ${number(count.stored)} of ${number(count.maximum)} persons, ` +
      `${number(verdict.creates)} creates sent, ${number(count.answered201)} answered 201`,
    `failed     ${number(sum("failed"))} of ${number(sum("requests"))} requests`,
    `read back  ${number(readBack.persons)} persons: ${readBack.lost} lost, ${readBack.changed} changed, ` +
      `${readBack.unreadable} unreadable; ${searches.checked} searches: ${searches.wrong} wrong`,
    "",
  ];

  const latencyRows = Object.entries(requests).map(([name, now]) => {
    const then = against?.requests[name];
    const times = latencyKeys.map((key) => compared(number(now[key]), now[key], then?.[key]));
    return [name, number(now.requests), number(now.failed), ...times];
  });
  lines.push(...table([["ms", "requests", "failed", ...latencyKeys], ...latencyRows]), "");

  const useRow = (name: string, now: Use, then: Use | undefined) => [
    name,
    ...useKeys.map((key) => {
      const text = key.endsWith("Bytes") ? mebibytes(now[key]) : now[key].toFixed(2);
      return compared(text, now[key], then?.[key]);
    }),
  ];
  const useRows = Object.entries(services).map(([name, now]) =>
    useRow(now.restarts > 0 ? `${name} (restarted)` : name, now, against?.services[name]),
  );
  if (useRows.length > 0) {
    const head = ["CPU-seconds", "user", "system", "throttled", "peak MiB", "without cache"];
    lines.push(
      ...table([head, ...useRows, useRow("total", sumUse(verdict), against && sumUse(against))]),
      "",
    );
  }
  if (verdict.requestsPerCpuSecond !== null) {
    const now = verdict.requestsPerCpuSecond;
    const then = against?.requestsPerCpuSecond ?? undefined;
    lines.push(`requests per CPU-second  ${compared(number(now), now, then)}`, "");
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

const latencyKeys = ["p50", "p95", "p99", "max"] as const;
const useKeys = ["userS", "systemS", "throttledS", "peakBytes", "peakWorkingSetBytes"] as const;
type Use = Pick<ServiceUse, (typeof useKeys)[number]>;

/** The sum of all services. The peak working set is that of one moment, if it is known. */
function sumUse({ services, peakWorkingSetBytes }: Verdict): Use {
  const all = Object.values(services);
  const sums = useKeys.map((key) => [key, all.reduce((total, use) => total + use[key], 0)]);
  const use: Use = Object.fromEntries(sums);
  return { ...use, peakWorkingSetBytes: peakWorkingSetBytes ?? use.peakWorkingSetBytes };
}

/** `text` with the ratio to the other run's value: "12 ×0.83"; "×-" if that value is 0. */
function compared(text: string, now: number, then: number | undefined): string {
  if (then === undefined) return text;
  if (then === 0) return `${text} ${now === 0 ? "×1.00" : "×-"}`;
  return `${text} ×${(now / then).toFixed(2)}`;
}

async function main(): Promise<void> {
  const { results, ...values } = readArguments(
    usage,
    {
      data: { type: "string" },
      "base-url": { type: "string", default: "http://127.0.0.1:9999" },
      "count-before": { type: "string", default: "0" },
      against: { type: "string" },
    },
    (values, [results]) => {
      if (results === undefined) throw new RangeError("expected one RESULTS_DIR; see --help");
      return { ...values, results };
    },
    1,
  );
  if (values.data === undefined) throw new RangeError("--data: expected a folder; see --help");
  // Read before the verdict, so that a wrong file name is reported at once.
  const against =
    values.against === undefined ? undefined : ((await Bun.file(values.against).json()) as Verdict);
  if (against && (typeof against.requests !== "object" || typeof against.services !== "object")) {
    throw new RangeError(`--against: ${values.against} is not the JSON of a verdict`);
  }
  const verdict = await judge({
    results,
    data: values.data,
    baseUrl: values["base-url"],
    countBefore: wholeOf("count-before", values["count-before"], 0),
  });
  await Bun.write(join(results, "verdict.json"), `${JSON.stringify(verdict, null, 2)}\n`);
  console.log(render(verdict, against, process.stdout.isTTY));
  if (!verdict.passed) process.exitCode = 1;
}

if (import.meta.main) await runScript(main);
