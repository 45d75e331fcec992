import { closeSync, openSync, readFileSync, writeSync } from "node:fs";

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
