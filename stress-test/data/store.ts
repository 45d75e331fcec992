import { entryOf, storedColumns } from "../../db.ts";
import { idOf } from "../../contract/pessoa.ts";
import { inBulk } from "../../search/search.ts";
import { shortTerms } from "../../search/short-terms.ts";
import type { Pessoa } from "./contract.ts";

/** Runs `copy … from stdin` with these lines as its input. */
export type CopyInto = (table: string, lines: Iterable<string>) => Promise<unknown>;

/**
 * Stores persons with COPY as the server would: the first 50,000 for the search in memory, later ones for the index, and
 * rows for their short terms. `there`: persons already stored for the memory, and short terms that need no more rows.
 */
export async function store(
  copyInto: CopyInto,
  persons: Iterable<Pessoa>,
  there: { held: number; full: string[] } = { held: 0, full: [] },
): Promise<void> {
  const short = shortTerms(Number.POSITIVE_INFINITY);
  short.full(there.full);
  const searchableOf = inBulk(there.held);
  const terms: string[] = [];
  const rows = function* () {
    for (const person of persons) {
      const { id, row, searchable } = entryOf({ id: idOf(person.apelido), ...person }, searchableOf);
      const wanting = searchable.text === null ? [] : short.wanting(searchable.fields, () => false);
      short.added(wanting);
      for (const term of wanting) terms.push(line([term, id]));
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
