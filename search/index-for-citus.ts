import type { Query } from "../database/pool.ts";
import { searchable } from "./index-text.ts";
import { columns, insertTermsStatement } from "./search.ts";
import { shortTerms } from "./short-terms.ts";

type Row = { id: string; apelido: string; nome: string; stack: string | null };

const portion = 1000; // persons
const updateStatement = `
  with texts as materialized (select key::uuid as id, value as text from json_each_text($1))
  update pessoas set busca = texts.text from texts where pessoas.id = texts.id`;

/**
 * For a database that became Citus, where all persons are in the index. Each call indexes some persons. False when
 * none is left.
 */
export function indexerForCitus(): (query: Query) => Promise<boolean> {
  const short = shortTerms(Number.POSITIVE_INFINITY);
  return async (query) => {
    const rows = await query<Row>(`select ${columns} from pessoas where busca is null limit ${portion}`, []);
    if (rows.length === 0) return false;
    const texts: Record<string, string> = {};
    const terms: Record<string, string[]> = {};
    for (const { id, stack, ...row } of rows) {
      const { fields, text } = searchable({ ...row, stack: stack && JSON.parse(stack) });
      const needed = short.needed(fields, () => false);
      short.stored(needed);
      texts[id] = text;
      if (needed.length > 0) terms[id] = needed;
    }
    await query(updateStatement, [JSON.stringify(texts)]);
    if (Object.keys(terms).length > 0) await query(insertTermsStatement, [JSON.stringify(terms)]);
    return rows.length === portion;
  };
}
