import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { parse } from "../measure/audit.ts";
import { type Answer, headerOf, type Request } from "./http.ts";
import { locationOf } from "./requests.ts";

/** What is sent: members that may be missing are missing, as a client would leave them out. */
export type Body = { apelido: string; nome: string; nascimento: string; stack?: string[] | null };

/**
 * What a client knows of one create. `acknowledged`: it got 201 with this id. `refused`: it got a 4xx. `unknown`: no
 * answer, half of one, or a 5xx: it may be stored or not.
 */
export type Outcome =
  | { kind: "acknowledged"; id: string; answer: unknown }
  | { kind: "refused"; status: number }
  | { kind: "unknown"; reason: string };
export type Attempt = { body: Body; outcome: Outcome };

type Line = { sent: number; body: Body } | { of: number; outcome: Outcome };
export type Journal = ReturnType<typeof openJournal>;

const noAnswer: Outcome = { kind: "unknown", reason: "no answer" };

/** A create of `body`. Its answer is handed to `answered`, which is not called when there is none. */
export function createOf(body: Body, answered: (outcome: Outcome) => void = () => {}): Request {
  const check = (answer: Answer) => {
    answered(outcomeOf(answer));
    return "";
  };
  return { kind: "create", method: "POST", path: "/pessoas", body: JSON.stringify(body), check };
}

/** What the answer to a create says; undefined: there was none. */
export function outcomeOf(answer: Answer | undefined): Outcome {
  if (!answer) return noAnswer;
  const { status, body } = answer;
  if (status === 201) {
    const [, id] = /^\/pessoas\/([0-9a-f-]{36})$/.exec(locationOf(answer)) ?? [];
    if (id === undefined) return { kind: "unknown", reason: "201 without a Location" };
    return { kind: "acknowledged", id, answer: parse(body.toString()) };
  }
  if (status >= 400 && status < 500) return { kind: "refused", status };
  const retry = headerOf(answer, "retry-after");
  return { kind: "unknown", reason: `${status}${retry === undefined ? " without Retry-After" : ""}` };
}

/** Attempts on disk, one line before a create is sent and one when its answer is there. */
export function openJournal(path: string) {
  const file = openSync(path, "wx");
  const write = (line: Line) => writeSync(file, `${JSON.stringify(line)}\n`);
  let attempts = 0;
  return {
    path,
    /** Returns what to call with the answer. */
    sent(body: Body): (outcome: Outcome) => void {
      const sent = attempts++;
      write({ sent, body });
      return (outcome) => write({ of: sent, outcome });
    },
    close: () => closeSync(file),
  };
}

/** All attempts, in the order in which they were sent. Of who wrote it, nothing else has to be alive. */
export function readJournal(path: string): Attempt[] {
  const attempts: Attempt[] = [];
  const lines = readFileSync(path, "utf8").split("\n");
  // What follows the last newline is empty, or a line that was cut.
  for (const text of lines.slice(0, -1)) {
    const line = JSON.parse(text) as Line;
    if ("sent" in line) attempts[line.sent] = { body: line.body, outcome: noAnswer };
    else (attempts[line.of] as Attempt).outcome = line.outcome;
  }
  return attempts;
}
