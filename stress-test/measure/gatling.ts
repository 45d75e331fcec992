import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { temporaryFolder } from "../../tests/helpers/support.ts";
import { payloadsFile, termsFile } from "../data/payloads.ts";
import type { Timed } from "./statistics.ts";

/** Requests of one kind that failed for the same reason, with one message in full. */
export type Failure = { request: string; message: string; times: number; example: string };

/** The content of simulation.log. Times in ms. */
export type Log = {
  description: string;
  startMs: number;
  endMs: number;
  requests: Timed[];
  failures: Failure[];
  /** Messages of users that crashed before their request. */
  errors: string[];
};

/** Reads the text of Gatling 3.9's simulation.log. */
export function readLog(text: string): Log {
  const log: Log = { description: "", startMs: 0, endMs: 0, requests: [], failures: [], errors: [] };
  const failures = new Map<string, Failure>();
  for (const line of text.split("\n")) {
    const [kind, ...fields] = line.split("\t");
    if (kind === "RUN") {
      log.startMs = Number(fields[2]);
      log.description = (fields[3] ?? "").trim();
    } else if (kind === "REQUEST") {
      const [, name = "", start, end, answer, message = ""] = fields;
      const ms = Number(end) - Number(start);
      log.requests.push({ kind: name, startMs: Number(start), ms, failed: answer !== "OK" });
      log.endMs = Math.max(log.endMs, Number(end));
      if (answer === "OK") continue;
      const short = kindOfFailure(message);
      const key = `${name}\t${short}`;
      const { times = 0, example = message.trim() } = failures.get(key) ?? {};
      failures.set(key, { request: name, message: short, times: times + 1, example });
    } else if (kind === "ERROR") {
      log.errors.push(fields[0] ?? "");
    }
  }
  log.failures = [...failures.values()].sort((a, b) => b.times - a.times);
  return log;
}

/** The message without the parts that differ between requests, so that the same failures count together. */
function kindOfFailure(message: string): string {
  return message
    .replace(/(bodyString.*?found )/, "")
    .replace(/: (.*[{[<"].*)$/s, "")
    .replace(/ the term .*$/s, " the term")
    .trim();
}

/** One line of created.tsv: the payload of row `row` (from 0) got 201 with this Location. */
export type Created = { row: number; location: string };

/** Reads the text of created.tsv. */
export function readCreated(text: string): Created[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => {
    const [row, location = ""] = line.split("\t");
    return { row: Number(row), location };
  });
}

/** `scale` multiplies every duration. */
export type ContestLoad = {
  url: string;
  rows: readonly { payload: string; accept: readonly number[] }[];
  terms: readonly string[];
  scale: number;
  signal: AbortSignal;
};
/** `faults`: the number of each fault of answers. `cpuS`: CPU-seconds of the generator. */
export type LoadResult = { requests: Timed[]; faults: Record<string, number>; cpuS: number };

/** Runs the contest's simulation by the Gatling in `home`, without a verdict or a report. */
export async function runGatling(
  home: string,
  { url, rows, terms, scale, signal }: ContestLoad,
): Promise<LoadResult> {
  await using made = await temporaryFolder("gatling");
  const folder = made.path;
  const payloads = rows.map(({ payload, accept }) => `${payload}\t${accept.join()}\n`);
  await Bun.write(join(folder, payloadsFile), `payload\taccept\n${payloads.join("")}`);
  await Bun.write(join(folder, termsFile), `t\n${terms.join("\n")}\n`);
  const simulations = join(import.meta.dir, "..", "user-files", "simulations");
  const folders = ["-sf", simulations, "-rsf", folder, "-rf", folder];
  const options = ["-nr", "-s", "RinhaBackendSimulation", ...folders];
  const child = Bun.spawn([join(home, "bin", "gatling.sh"), ...options], {
    env: { ...process.env, BASE_URL: url, SECONDS_SCALE: String(scale), CREATED_FILE: undefined },
    signal,
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [said, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  const code = await child.exited;
  signal.throwIfAborted();
  const [run] = (await readdir(folder, { withFileTypes: true })).filter((each) => each.isDirectory());
  if (code !== 0 || !run) throw new Error(`Gatling: ${(problems || said).trim().split("\n").at(-1)}`);
  const { requests, failures } = readLog(await readFile(join(folder, run.name, "simulation.log"), "utf8"));
  const faults = failures.map(({ request, message, times }) => [`${request}: ${message}`, times]);
  const { cpuTime } = child.resourceUsage() as { cpuTime: { total: bigint } };
  return { requests, faults: Object.fromEntries(faults), cpuS: Number(cpuTime.total) / 1e6 };
}
