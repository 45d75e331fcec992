import { closeSync, openSync, readFileSync, writeSync } from "node:fs";
import { parse } from "../measure/audit.ts";
import { type Answer, headerOf, type Request } from "./http.ts";
import { locationOf } from "./requests.ts";

/** The body of a create. Optional members are missing, not null, as from a client. */
export type Body = { apelido: string; nome: string; nascimento: string; stack?: string[] | null };

/**
 * The outcome of a create, as its client sees it. `acknowledged`: 201 with this id. `refused`: a 4xx. `unknown`: a 5xx,
 * or no complete answer; the person may be stored or not.
 */
export type Outcome =
  | { kind: "acknowledged"; id: string; answer: unknown }
  | { kind: "refused"; status: number }
  | { kind: "unknown"; reason: string };
export type Attempt = { body: Body; outcome: Outcome };

type Line = { sent: number; body: Body } | { of: number; outcome: Outcome };
export type Journal = ReturnType<typeof openJournal>;

const noAnswer: Outcome = { kind: "unknown", reason: "no answer" };

/** A create of `body`. Calls `answered` with the outcome if there is an answer. */
export function createOf(body: Body, answered: (outcome: Outcome) => void = () => {}): Request {
  const check = (answer: Answer) => {
    answered(outcomeOf(answer));
    return "";
  };
  return { kind: "create", method: "POST", path: "/pessoas", body: JSON.stringify(body), check };
}

/** The outcome of a create. `answer`: undefined if there was none. */
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

/** Attempts on disk: one line before a create is sent, and one after its answer. */
export function openJournal(path: string) {
  const file = openSync(path, "wx");
  const write = (line: Line) => writeSync(file, `${JSON.stringify(line)}\n`);
  let attempts = 0;
  return {
    path,
    /** Returns the function to call with the outcome. */
    sent(body: Body): (outcome: Outcome) => void {
      const sent = attempts++;
      write({ sent, body });
      return (outcome) => write({ of: sent, outcome });
    },
    close: () => closeSync(file),
  };
}

/** All attempts, in the order in which they were sent. The process that wrote them may have been killed. */
export function readJournal(path: string): Attempt[] {
  const attempts: Attempt[] = [];
  const lines = readFileSync(path, "utf8").split("\n");
  // After the last newline there is nothing, or an incomplete line.
  for (const text of lines.slice(0, -1)) {
    const line = JSON.parse(text) as Line;
    if ("sent" in line) attempts[line.sent] = { body: line.body, outcome: noAnswer };
    else (attempts[line.of] as Attempt).outcome = line.outcome;
  }
  return attempts;
}
