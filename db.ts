import { type Pessoa, toJson } from "./contract/pessoa.ts";
import { batches, Unavailable } from "./database/batch.ts";
import { checkSessions, ignoredParameters } from "./database/checks.ts";
import { openConnections } from "./database/connections.ts";
import { type Outcome, openInserts } from "./database/inserts.ts";
import { migrate } from "./database/migration.ts";
import type { Pool, Query } from "./database/pool.ts";
import { replica } from "./database/replica.ts";
import * as log from "./process/log.ts";
import { indexer } from "./search/index-all.ts";
import type { Hit } from "./search/memory.ts";
import { insertStatement, insertWithTermsStatement, type Row, rowOf, storedColumns } from "./search/rows.ts";
import { columns, insertTermsStatement, openSearch } from "./search/search.ts";

export { loggable } from "./database/session.ts";
export { Unavailable };

export type DbOptions = {
  /** As for psql (database/address.ts). */
  url: string;
  /** A replica for reads by id. */
  readUrl?: string | undefined;
  timeoutMs: number;
  searches: number;
  /** Default 0. */
  windowMs?: number;
  /** Default 128. */
  batchSize?: number;
  queueLimit?: number;
  /** Default 50,000. */
  maxInMemory?: number;
  cached?: (id: string) => string | undefined;
};

const searchesInRead = 4; // per statement that reads their hits

const findStatement = `select ${columns} from pessoas where id = $1`;
const findManyStatement = `select ${columns} from pessoas where id = any ($1::uuid[])`;
const hitsStatement = `select ${columns} from pessoas where ctid = any ($1::tid[])`;
const countStatement = "select count(*) as n from pessoas";
const readStatement = "select 1 from pessoas limit 1";
const probeStatement = `insert into pessoas (${storedColumns}) select ${storedColumns} from pessoas where false`;

/** Every promise rejects with Unavailable when the deadline passes or a queue is full; any other error is a bug. */
export type Db = ReturnType<typeof openDb>;

export function openDb(options: DbOptions) {
  const { url, readUrl, timeoutMs, searches: maxSearches, windowMs = 0, batchSize = 128 } = options;
  const { queueLimit = 4096, maxInMemory, cached = () => undefined } = options;
  for (const warning of ignoredParameters({ DATABASE_URL: url, DATABASE_URL_READ: readUrl }))
    log.warn(warning);
  const connections = openConnections({ url, readUrl, timeoutMs, searches: maxSearches });
  const { reads, searches, slow, isWorking, batchOptions } = connections;
  const closing = new AbortController();
  let isCitus = false;

  const search = openSearch({
    maxPersons: maxInMemory,
    query: reads.query,
    // All waiting searches asked before the statement starts, so one answer holds for each.
    inTurn: batches(
      async (asked: (() => Promise<boolean>)[]) => {
        const isCurrent = (await asked[0]?.()) ?? true;
        return asked.map(() => isCurrent);
      },
      batchOptions(reads, queueLimit, queueLimit),
    ).submit,
    cached,
    read: (hits) => hitsRead.submit(hits),
    searchIndex: (statement, parameters) => indexSearches.submit({ statement, parameters }),
    // After a failure the next merge includes these rows.
    merge: () => connections.merge().catch((error: Error) => log.debug(`not merged: ${error.message}`)),
  });

  const inserts = openInserts<Row>({
    connections,
    store,
    probe: (pool) => pool.query(isCitus ? readStatement : probeStatement, []),
    isCitus: () => isCitus,
    ...{ timeoutMs, batchSize, queueLimit, windowMs },
  });
  const finds = batches(findMany, batchOptions(reads, batchSize, queueLimit));
  const hitsRead = batches(readHits, batchOptions(reads, searchesInRead, queueLimit));
  const indexSearches = batches(searchIndex, batchOptions(searches, 1, queueLimit));
  const counts = batches(count, batchOptions(slow, queueLimit, queueLimit));
  const pings = batches(ping, batchOptions(reads, queueLimit, queueLimit));
  const { replica: replicaPool, replicaTimeoutMs } = connections;
  const fromReplica =
    replicaPool &&
    replica({
      ask: (ids) => findIn(replicaPool, ids),
      timeoutMs: replicaTimeoutMs,
      abandon: replicaPool.reopen,
      report: (message) => log.warn(`DATABASE_URL_READ: ${message}`),
    });

  /** In one commit. Resolves with the new ids. */
  async function store(pool: Pool, rows: Row[], lockTimeoutMs: number): Promise<Set<string>> {
    const terms = new Map<string, string[]>();
    for (const { id, searchable } of rows) {
      if (searchable.text === null || terms.has(id)) continue;
      const needed = search.neededTerms(searchable.fields);
      if (needed.length > 0) terms.set(id, needed);
    }
    const ids = await (isCitus && (terms.size > 0 || lockTimeoutMs > 0)
      ? pool.transaction((query) => insertInParts(query, rows, terms, lockTimeoutMs))
      : insert(pool.query, rows, terms));
    const created = new Set(ids);
    // Of several rows with one id the first is stored.
    const stored = rows.filter(({ id }, i) => created.has(id) && rows[i - 1]?.id !== id);
    search.stored(
      stored.map(({ searchable }) => searchable),
      ids.flatMap((id) => terms.get(id) ?? []),
    );
    return created;
  }

  async function findMany(ids: string[]): Promise<(string | undefined)[]> {
    const found = (await fromReplica?.find(ids)) ?? new Map<string, string>();
    await addFound(found, ids);
    return ids.map((id) => found.get(id));
  }

  async function addFound(found: Map<string, string>, ids: string[]): Promise<void> {
    const others = found.size === 0 ? ids : ids.filter((id) => !found.has(id));
    if (others.length === 0) return;
    for (const [id, text] of await findIn(reads, others)) found.set(id, text);
  }

  async function readHits(asked: Hit[][]): Promise<Map<string, string>[]> {
    const all = asked.flat();
    const places = `{${all.map(({ ctid }) => `"${ctid}"`).join()}}`;
    const found = textsOf(await reads.query<PessoaRow>(hitsStatement, [places]));
    const ids = all.map(({ id }) => id);
    await addFound(found, ids); // rows that have moved
    return asked.map(() => found);
  }

  async function searchIndex([asked]: { statement: string; parameters: string[] }[]) {
    const { statement = "", parameters = [] } = asked ?? {};
    const rows = await searches.query<PessoaRow>(statement, parameters);
    const persons = rows.filter(({ id }) => id !== null);
    return [{ texts: textsOf(persons), isCurrent: persons.length === rows.length }];
  }

  async function count(asked: undefined[]): Promise<number[]> {
    const [row] = await slow.query<{ n: string }>(countStatement, []);
    return asked.map(() => Number(row?.n));
  }

  async function ping(asked: undefined[]): Promise<undefined[]> {
    await reads.query(readStatement, []);
    return asked;
  }

  return {
    /** Creates what the schema lacks. Rejects with RangeError, in one line, when DATABASE_URL cannot be used. */
    async migrate(): Promise<void> {
      const gaveUp = AbortSignal.any([closing.signal, AbortSignal.timeout(2 * timeoutMs)]);
      await checkSessions(url, connections.count, gaveUp);
      await migrate({
        ...{ url, timeoutMs, isWorking, log },
        closing: closing.signal,
        indexSome: indexer(),
        async use(query, onCitus) {
          isCitus = onCitus;
          if (isCitus) connections.planEachSearch();
          await search.load(query, isCitus);
        },
      });
    },
    /** Resolves after the commit is flushed. */
    insertPessoa: (pessoa: Pessoa): Promise<Outcome> => inserts.insert(rowOf(pessoa, search.searchableOf)),
    /** Whether one more huge person would be rejected. Ask before its body is validated. */
    isFullOfHuge: inserts.isFullOfHuge,
    /** The JSON text of a person. `id`: a UUID in lower case. */
    findPessoa: finds.submit,
    searchPessoas: search.find,
    countPessoas: (): Promise<number> => counts.submit(undefined),
    /** Resolves when Postgres answers reads and could store a create. */
    async ping(): Promise<void> {
      await Promise.all([pings.submit(undefined), inserts.probe()]);
    },
    stats: () => ({ ...inserts.stats(), find: finds.stats(), search: indexSearches.stats() }),
    memoryStats: search.stats,
    /** Undefined without a replica. */
    replicaStats: () => fromReplica?.stats(),
    async close(): Promise<void> {
      closing.abort(new Unavailable("the server stops"));
      fromReplica?.close();
      search.close();
      await connections.close();
    },
  };
}

type PessoaRow = { id: string; apelido: string; nome: string; nascimento: string; stack: string | null };

const textsOf = (rows: PessoaRow[]) => new Map(rows.map((row) => [row.id, toJson(row, row.stack)]));

async function findIn(pool: Pool, ids: string[]): Promise<Map<string, string>> {
  // `=` takes a quarter less CPU than `any`, and Citus plans it once, for one shard.
  const [statement, parameter] =
    ids.length === 1 ? [findStatement, ids[0] as string] : [findManyStatement, `{${ids.join()}}`];
  return textsOf(await pool.query<PessoaRow>(statement, [parameter]));
}

type Terms = Map<string, string[]>;
const toJsonText = (terms: Terms) => JSON.stringify(Object.fromEntries(terms));

/** One statement: a lost client's transaction would leave its rows locked. */
async function insert(query: Query, rows: Row[], terms: Terms): Promise<string[]> {
  const values = rows.flatMap((row) => row.values);
  const created =
    terms.size === 0
      ? await query<{ id: string }>(insertStatement(rows.length), values)
      : await query<{ id: string }>(insertWithTermsStatement(rows.length), [...values, toJsonText(terms)]);
  return created.map(({ id }) => id);
}

/** A transaction: Citus rejects one statement that inserts into two distributed tables. */
async function insertInParts(
  query: Query,
  rows: Row[],
  terms: Terms,
  lockTimeoutMs: number,
): Promise<string[]> {
  const settings =
    lockTimeoutMs > 0 ? ["citus.propagate_set_commands = 'local'", `lock_timeout = ${lockTimeoutMs}`] : [];
  // Pipelined: the connection executes them in this order.
  const set = settings.map((setting) => query(`set local ${setting}`, []));
  const [created] = await Promise.all([insert(query, rows, new Map()), ...set]);
  const createdTerms = new Map([...terms].filter(([id]) => created.includes(id)));
  if (createdTerms.size > 0) await query(insertTermsStatement, [toJsonText(createdTerms)]);
  return created;
}
