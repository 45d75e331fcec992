import { shortTerms, textOf } from "../curtos.ts";
import { entryOf, storedColumns } from "../db.ts";
import { idOf } from "../pessoa.ts";
import type { Pessoa } from "./contract.ts";

/** Runs `copy … from stdin` with these lines as its input. */
export type CopyInto = (table: string, lines: Iterable<string>) => Promise<unknown>;

/**
 * Stores persons past the server, and those of their short terms that a server would enter: `full` are the ones that
 * have rows enough already.
 */
export async function store(
  copyInto: CopyInto,
  persons: Iterable<Pessoa>,
  full: string[] = [],
): Promise<void> {
  const short = shortTerms(Number.POSITIVE_INFINITY);
  short.full(full);
  const terms: string[] = [];
  const rows = function* () {
    for (const person of persons) {
      const { id, row, fields } = entryOf({ id: idOf(person.apelido), ...person });
      const missing = short.missing(fields);
      short.added(missing);
      for (const term of missing) terms.push(line([textOf(term), id]));
      yield line(row);
    }
  };
  await copyInto(`pessoas (${storedColumns})`, rows());
  await copyInto("curtos (termo, id)", terms);
}

function line(row: (string | null)[]): string {
  return `${row.map(cell).join("\t")}\n`;
}

const escapes: Record<string, string> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };
function cell(value: string | null): string {
  return value === null
    ? "\\N"
    : value.replaceAll(/[\\\n\r\t]/g, (character) => escapes[character] as string);
}
