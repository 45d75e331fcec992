import type { Timed } from "./statistics.ts";

/** Requests of one kind that failed for the same reason, with one message in full. */
export type Failure = { request: string; message: string; times: number; example: string };

/** What simulation.log holds. Times in ms. */
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
