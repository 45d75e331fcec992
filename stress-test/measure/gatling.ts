import type { Timed } from "./statistics.ts";

/** Requests of one kind that failed for the same reason, with one message in full. */
export type Failure = { request: string; message: string; times: number; example: string };

/** What simulation.log holds. Times in ms. */
export type Log = {
  description: string;
  startMs: number;
  endMs: number;
  requests: Timed[];
  failures: Failure[];
  /** Messages of users that crashed before they could send. */
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
      const failure = failures.get(key) ?? {
        request: name,
        message: short,
        times: 0,
        example: message.trim(),
      };
      failures.set(key, { ...failure, times: failure.times + 1 });
    } else if (kind === "ERROR") {
      log.errors.push(fields[0] ?? "");
    }
  }
  log.failures = [...failures.values()].sort((a, b) => b.times - a.times);
  return log;
}

/** The message without the parts that differ between requests, so that equal failures are counted together. */
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
