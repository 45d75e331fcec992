import type { Pessoa } from "../contract/pessoa.ts";
import { columns, type Search, type Searchable } from "./search.ts";

export const storedColumns = `${columns}, busca`;

/** A row to insert: `values` in the order of storedColumns, `bytes` of its fields. */
export type Row = { id: string; values: (string | null)[]; bytes: number; searchable: Searchable };

export function rowOf(pessoa: Pessoa, searchableOf: Search["searchableOf"]): Row {
  const { id, apelido, nome, nascimento } = pessoa;
  const stack = pessoa.stack && JSON.stringify(pessoa.stack);
  const bytes = Buffer.byteLength(apelido) + Buffer.byteLength(nome) + Buffer.byteLength(stack ?? "");
  const searchable = searchableOf(pessoa, bytes);
  return { id, values: [id, apelido, nome, nascimento, stack, searchable.text], bytes, searchable };
}

const columnCount = 6;
/** Resolves a number of rows to their insert. */
export const insertStatement = memoized((rows) => {
  const tuples = Array.from({ length: rows }, (_, row) => {
    const parameters = Array.from({ length: columnCount }, (_, i) => `$${row * columnCount + i + 1}`);
    return `(${parameters.join()})`;
  });
  return `insert into pessoas (${storedColumns}) values ${tuples.join()} on conflict do nothing returning id`;
});
/** The same with the new persons' short terms: a JSON object by id. */
export const insertWithTermsStatement = memoized(
  (rows) => `
  with created as (${insertStatement(rows)}),
  entered as (
    insert into short_terms (term, id) select term, created.id
    from json_each($${columnCount * rows + 1}) as person (id, terms)
      join created on created.id = person.id::uuid, json_array_elements_text(terms) as term
  )
  select id from created`,
);

function memoized(make: (rows: number) => string): (rows: number) => string {
  const made: string[] = [];
  return (rows) => (made[rows] ??= make(rows));
}
