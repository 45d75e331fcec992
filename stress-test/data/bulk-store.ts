import { idOf } from "../../contract/pessoa.ts";
import { storedColumns } from "../../database/inserts.ts";
import { rowOf } from "../../db.ts";
import { searchableInBulk } from "../../search/search.ts";
import { shortTerms } from "../../search/short-terms.ts";
import type { Pessoa } from "./reference-contract.ts";

/** Runs `copy … from stdin` with these lines as its input. */
export type CopyInto = (table: string, lines: Iterable<string>) => Promise<unknown>;

/**
 * Stores persons with COPY as the server would: the first 50,000 for the search in memory, later ones for the index,
 * and rows for their short terms. `there`: stacks of the persons already in memory, their limit, and short terms that
 * need no more rows.
 */
export async function store(
  copyInto: CopyInto,
  persons: Iterable<Pessoa>,
  there: { stacks: (string[] | null)[]; maxInMemory?: number; completeTerms: string[] } = {
    stacks: [],
    completeTerms: [],
  },
): Promise<void> {
  const short = shortTerms(Number.POSITIVE_INFINITY);
  short.complete(there.completeTerms);
  const searchableOf = searchableInBulk(there.stacks, there.maxInMemory);
  const terms: string[] = [];
  const rows = function* () {
    for (const person of persons) {
      const { id, values, searchable } = rowOf({ id: idOf(person.apelido), ...person }, searchableOf);
      const needed = searchable.text === null ? [] : short.needed(searchable.fields, () => false);
      short.stored(needed);
      for (const term of needed) terms.push(line([term, id]));
      yield line(values);
    }
  };
  await copyInto(`pessoas (${storedColumns})`, rows());
  await copyInto("short_terms (term, id)", terms);
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
