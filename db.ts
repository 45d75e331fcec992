import { type Pessoa, toJson } from "./contract/pessoa.ts";
import { addressOf } from "./database/address.ts";
import { batches, Unavailable } from "./database/batch.ts";
import { checkSessions } from "./database/checks.ts";
import { type Outcome, openInserts, pingStatement, probe, type Row } from "./database/inserts.ts";
import { migrate } from "./database/migration.ts";
import type { Pool } from "./database/pool.ts";
import { openPools, type PoolsOptions } from "./database/pools.ts";
import { replica } from "./database/replica.ts";
import * as log from "./process/log.ts";
import { indexerForCitus } from "./search/index-for-citus.ts";
import { type Hit, placesOf } from "./search/memory.ts";
import { columns, type IndexQuery, insertTermsStatement, openSearch, type Search } from "./search/search.ts";

export { loggable } from "./database/session.ts";
export { Unavailable };

export type DbOptions = PoolsOptions & {
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
// Indexing a larger row takes milliseconds: stored alone, it delays no batch.
const hugeBytes = 2500;
// A queued huge row may take 32 times the memory, so their queue is 1/32 as long.
const hugeFactor = 32;

const findStatement = `select ${columns} from pessoas where id = $1`;
const findManyStatement = `select ${columns} from pessoas where id = any ($1::uuid[])`;
const hitsStatement = `select ${columns} from pessoas where ctid = any ($1::tid[])`;
const countStatement = "select count(*) as n from pessoas";

/** Every promise rejects with Unavailable when the deadline passes or a queue is full; any other error is a bug. */
export type Db = ReturnType<typeof openDb>;

export function openDb(options: DbOptions) {
  const { url, readUrl, timeoutMs, searches: maxSearches, windowMs = 0, batchSize = 128 } = options;
  const { queueLimit = 4096, maxInMemory, cached = () => undefined } = options;
  for (const [name, text] of Object.entries({ DATABASE_URL: url, DATABASE_URL_READ: readUrl })) {
    const ignored = text === undefined ? [] : addressOf(text).ignored;
    if (ignored.length > 0) log.warn(`${name}: ignored: ${ignored.join(", ")}`);
  }
  const pools = openPools({ url, readUrl, timeoutMs, searches: maxSearches });
  const { reads, searches, slow, isWorking, batchOptions } = pools;
  const closing = new AbortController();
  let isCitus = false;

  const finds = batches(findMany, batchOptions(reads, batchSize, queueLimit));
  const hitsRead = batches(readHits, batchOptions(reads, searchesInRead, queueLimit));
  const indexSearches = batches(searchIndex, {
    ...batchOptions(searches, 1, queueLimit),
    maxWaitShare: 1 / 4, // a slow statement delays all behind it
  });
  const refreshes = batches(refresh, batchOptions(reads, queueLimit, queueLimit));
  const counts = batches(count, batchOptions(slow, queueLimit, queueLimit));
  const pings = batches(ping, batchOptions(reads, queueLimit, queueLimit));

  const search = openSearch({
    maxPersons: maxInMemory,
    query: reads.query,
    inTurn: refreshes.submit,
    cached,
    read: hitsRead.submit,
    searchIndex: indexSearches.submit,
    // After a failure the next merge includes these rows.
    merge: () =>
      pools.merge().catch((error) => log.debug(`the pending list was not merged: ${error.message}`)),
  });

  const inserts = openInserts({
    pools,
    search,
    insertTermsStatement,
    isCitus: () => isCitus,
    timeoutMs,
  });
  const creates = batches(inserts.insertBatch, {
    ...batchOptions(pools.creates, batchSize, queueLimit),
    windowMs,
    isWorking: inserts.isWorking,
    onAbandoned: inserts.onAbandoned,
  });
  const hugeCreates = batches(inserts.insertHuge, {
    ...batchOptions(slow, 1, Math.ceil(queueLimit / hugeFactor)),
    maxWaitShare: Infinity, // validating a retry costs more than a longer queue
  });
  const { replica: replicaPool, replicaTimeoutMs } = pools;
  const fromReplica =
    replicaPool &&
    replica({
      ask: (ids) => findIn(replicaPool, ids),
      timeoutMs: replicaTimeoutMs,
      abandon: replicaPool.reopen,
      report: (message) => log.warn(`DATABASE_URL_READ: ${message}`),
    });

  async function insertPessoa(pessoa: Pessoa): Promise<Outcome> {
    const row = rowOf(pessoa, search.searchableOf);
    const isAlone = row.bytes > hugeBytes || inserts.isUndecided(row.id);
    const answer = await (isAlone ? hugeCreates : creates).submit(row);
    if (answer instanceof Unavailable) throw answer;
    return answer;
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
    const found = textsOf(await reads.query<PessoaRow>(hitsStatement, [placesOf(all)]));
    const ids = all.map(({ id }) => id);
    await addFound(found, ids); // rows that have moved
    return asked.map(() => found);
  }

  async function searchIndex([asked]: IndexQuery[]) {
    const { statement = "", parameters = [] } = asked ?? {};
    const rows = await searches.query<PessoaRow>(statement, parameters);
    const persons = rows.filter(({ id }) => id !== null);
    return [{ texts: textsOf(persons), isCurrent: persons.length === rows.length }];
  }

  /** All waiting searches asked before the statement starts, so one answer holds for each. */
  async function refresh(asked: (() => Promise<boolean>)[]): Promise<boolean[]> {
    const isCurrent = (await asked[0]?.()) ?? true;
    return asked.map(() => isCurrent);
  }

  async function count(asked: undefined[]): Promise<number[]> {
    const [row] = await slow.query<{ n: string }>(countStatement, []);
    return asked.map(() => Number(row?.n));
  }

  async function ping(asked: undefined[]): Promise<undefined[]> {
    await reads.query(pingStatement, []);
    return asked;
  }

  return {
    /** Creates what the schema lacks. Rejects with RangeError, in one line, when DATABASE_URL cannot be used. */
    async migrate(): Promise<void> {
      const gaveUp = AbortSignal.any([closing.signal, AbortSignal.timeout(2 * timeoutMs)]);
      await checkSessions(url, pools.connections, gaveUp);
      await migrate({
        url,
        timeoutMs,
        isWorking,
        log,
        closing: closing.signal,
        indexSome: indexerForCitus(),
        async use(query, onCitus) {
          isCitus = onCitus;
          if (isCitus) pools.planEachSearch();
          await search.load(query, isCitus);
        },
      });
    },
    /** Resolves after the commit is flushed. */
    insertPessoa,
    /** Whether one more huge person would be rejected. Ask before its body is validated. */
    isFullOfHuge: hugeCreates.isFull,
    /** The JSON text of a person. `id`: a UUID in lower case. */
    findPessoa: finds.submit,
    searchPessoas: search.find,
    countPessoas: (): Promise<number> => counts.submit(undefined),
    /** Resolves when Postgres answers reads and could store a create. */
    async ping(): Promise<void> {
      await Promise.all([pings.submit(undefined), creates.submit(probe).then(inserts.checkStored)]);
    },
    stats: () => ({
      insert: creates.stats(),
      insertHuge: hugeCreates.stats(),
      find: finds.stats(),
      search: indexSearches.stats(),
    }),
    memoryStats: search.stats,
    /** Undefined without a replica. */
    replicaStats: () => fromReplica?.stats(),
    async close(): Promise<void> {
      closing.abort(new Unavailable("the server stops"));
      fromReplica?.close();
      search.close();
      await pools.close();
    },
  };
}

export function rowOf(pessoa: Pessoa, searchableOf: Search["searchableOf"]): Row {
  const { id, apelido, nome, nascimento } = pessoa;
  const stack = pessoa.stack && JSON.stringify(pessoa.stack);
  const bytes = Buffer.byteLength(apelido) + Buffer.byteLength(nome) + Buffer.byteLength(stack ?? "");
  const searchable = searchableOf(pessoa, bytes);
  return { id, values: [id, apelido, nome, nascimento, stack, searchable.text], bytes, searchable };
}

type PessoaRow = { id: string; apelido: string; nome: string; nascimento: string; stack: string | null };

const textsOf = (rows: PessoaRow[]) => new Map(rows.map((row) => [row.id, toJson(row, row.stack)]));

async function findIn(pool: Pool, ids: string[]): Promise<Map<string, string>> {
  // `=` takes a quarter less CPU than `any`, and Citus plans it once, for one shard.
  const [statement, parameter] =
    ids.length === 1 ? [findStatement, ids[0] as string] : [findManyStatement, `{${ids.join()}}`];
  return textsOf(await pool.query<PessoaRow>(statement, [parameter]));
}
