import { commonElements } from "../comuns.ts";
import { shortTerms, textOf } from "../curtos.ts";
import { entryOf, storedColumns } from "../db.ts";
import { idOf } from "../pessoa.ts";
import type { Pessoa } from "./contract.ts";

/** Runs `copy … from stdin` with these lines as its input. */
export type CopyInto = (table: string, lines: Iterable<string>) => Promise<unknown>;

/**
 * Stores persons past the server as it would: with those of their short terms that want rows, for `full` are the ones that
 * have enough already, and without what is common among them.
 */
export async function store(
  copyInto: CopyInto,
  persons: Iterable<Pessoa>,
  full: string[] = [],
): Promise<void> {
  const short = shortTerms(Number.POSITIVE_INFINITY);
  short.full(full);
  const common = commonElements(Number.POSITIVE_INFINITY);
  const terms: string[] = [];
  const rows = function* () {
    for (const person of persons) {
      const { id, row, fields, elements } = entryOf({ id: idOf(person.apelido), ...person }, common);
      common.stored(elements);
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
