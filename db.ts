import type postgres from "postgres";
import { type Pessoa, toJson } from "./contract/pessoa.ts";
import { group, Unavailable, whileWorking } from "./database/batch.ts";
import {
  checkSchema,
  checkServer,
  checkSessions,
  convertible,
  refuse,
  warnOfIgnored,
} from "./database/checks.ts";
import { openPool, type Pool, type Query, queryOn, watched } from "./database/pool.ts";
import { type ReplicaStats, replica } from "./database/replica.ts";
import { connect, isRowError } from "./database/session.ts";
import * as log from "./process/log.ts";
import schema from "./schema.sql" with { type: "text" };
import type { Hit } from "./search/memory.ts";
import {
  columns,
  fullStatement,
  inBulk,
  type Known,
  mostHeld,
  openSearch,
  type Search,
  type Searchable,
  textsStatement,
} from "./search/search.ts";
import { shortTerms } from "./search/short-terms.ts";
import { searchable } from "./search/text.ts";

export { Unavailable };

export type DbOptions = {
  /** As for psql (address.ts). */
  url: string;
  /** The same for a replica of it, which answers reads by id where it can. */
  readUrl?: string | undefined;
  /** After this long a query is given up. */
  timeoutMs: number;
  /** Persons that one insert may take; default 128. */
  batchSize?: number;
  /** How long a create waits for others while they come more often than every six times that; default 0. */
  gatherMs?: number;
  /** Searches at once, each on a connection. */
  searches: number;
  /** Creates, reads by id and searches that may wait, each; default 4096. */
  queueLimit?: number;
  /** The JSON text of a person where the server remembers it. */
  cached?: (id: string) => string | undefined;
  /** Persons whose search text is held in memory; default 50,000. */
  held?: number;
};

/** What became of an insert. `refused`: the database cannot hold this row, whatever the reason it gave. */
export type Outcome = "created" | "taken" | "refused";

/**
 * What the server asks of Postgres. Every promise rejects with Unavailable when the database cannot be reached
 * in time or too much is waiting already; anything else that is thrown is a bug.
 */
export type Db = {
  /**
   * Applies schema.sql; any number of instances may do so at once. A role that does not own the table only checks
   * that it is there. RangeError, of one line: DATABASE_URL is refused, or may do too little.
   */
  migrate(): Promise<void>;
  /** Resolves after the commit is on disk. */
  insertPessoa(pessoa: Pessoa): Promise<Outcome>;
  /** Whether so many huge persons wait that one more would be refused: to be asked before one is read. */
  fullOfLong(): boolean;
  /** The JSON text of a person. `id` is a UUID in lower case. */
  findPessoa(id: string): Promise<string | undefined>;
  /** JSON texts of at most 50 persons who hold `term`. */
  searchPessoas(term: string): Promise<string[]>;
  countPessoas(): Promise<number>;
  /** Resolves when the database answers reads and could store a create. */
  ping(): Promise<void>;
  stats(): Record<"insert" | "insertLong" | "find" | "search", ReturnType<ReturnType<typeof group>["stats"]>>;
  /** Persons whose search text is in memory, and its bytes. */
  memoryStats(): ReturnType<Search["stats"]>;
  /** Undefined where there is none. */
  replicaStats(): ReplicaStats | undefined;
  close(): Promise<void>;
};

type Row = { id: string; apelido: string; nome: string; nascimento: string; stack: string | null };
/** The columns of what is stored of a person, in the order of an Entry's row. */
export const storedColumns = `${columns}, busca`;
const searchesAtOnce = 4; // whose persons are read with one statement
const hitsStatement = `select ${columns} from pessoas where ctid = any ($1::tid[])`;
const readStatement = "select 1 from pessoas limit 1";
// Stores nothing, and needs all that a create needs: its table lock, its right, a server that takes writes.
const probeStatement = `insert into pessoas (${storedColumns}) select ${storedColumns} from pessoas where false`;
const workingStatement = `
  select pid from pg_stat_activity where pid = any ($1::int[])
    and (state = 'active' or state_change > clock_timestamp() - $2::float8 * interval '1 ms')`;
/** Takes the place of a person in a batch, to learn whether one could be stored now. */
const probe = Symbol("probe");
// Of longer persons each statement takes one, beside the others: to index their texts takes milliseconds.
const longestInBatch = 2500; // bytes of JSON
// So many times as much memory as others long persons take while they wait: up to 64 KB of JSON.
const longsAre = 32;
const notStoredMs = 1000;
const mergerIdleS = 1; // Postgres keeps some of the memory that a merge takes for as long as the connection is there
// A plan for any parameters is the plan for each: making one anew takes a fifth of a search. And no table is read from end to end,
// also not while it is small: the plan stays when it has grown.
const plans = {
  enable_seqscan: "off",
  max_parallel_workers_per_gather: "0",
  plan_cache_mode: "force_generic_plan",
};

export function openDb({
  url,
  readUrl,
  timeoutMs,
  batchSize = 128,
  gatherMs = 0,
  searches: atOnce,
  queueLimit = 4096,
  cached = () => undefined,
  held = mostHeld,
}: DbOptions): Db {
  // Pools of their own, so that neither a slow search nor a burst of reads can hold up a create.
  const statementTimeout = (ms: number) => ({ statement_timeout: String(ms) });
  const limited = statementTimeout(timeoutMs);
  // Where Citus needs a transaction of several statements, one whose client is lost must not keep its rows.
  const storing = { idle_in_transaction_session_timeout: String(timeoutMs) };
  const patient = { ...statementTimeout(whileWorking * timeoutMs), ...storing };
  const writer = openPool({ url, max: 1, settings: () => patient });
  // For what is rare and takes long: huge persons and counts.
  const aside = openPool({ url, max: 1, settings: () => ({ ...limited, ...storing }) });
  // What takes longest.
  const merger = openPool({ url, max: 1, settings: () => statementTimeout(0), idleS: mergerIdleS });
  let citus = false;
  // On Citus a plan for any term is an error: which shards to ask, and with what, it plans for each.
  const planned = () => ({ ...limited, ...(citus ? {} : plans) });
  const reader = openPool({ url, max: 1, settings: planned });
  const searcher = openPool({ url, max: atOnce, settings: planned });
  // Asks what the server does when one of the others gets no answer: never behind any of their statements.
  const watcher = openPool({ url, max: 1, settings: () => limited, idleS: mergerIdleS });
  const patienceMs = Math.ceil(timeoutMs / 5); // for a replica
  const copy =
    readUrl === undefined
      ? undefined
      : openPool({ url: readUrl, max: 1, settings: () => statementTimeout(patienceMs) });
  warnOfIgnored({ DATABASE_URL: url, DATABASE_URL_READ: readUrl });
  const closing = new AbortController();
  const own = [writer, aside, merger, reader, searcher, watcher];
  const pools = [...own, ...(copy ? [copy] : [])];

  const queued = (of: Pool, size: number) => ({
    lanes: of.max,
    size,
    queueLimit,
    timeoutMs,
    onStuck: of.reopen,
  });

  const pings = group(
    async (asked: undefined[]) => {
      await reader.query(readStatement, []);
      return asked.map(() => undefined);
    },
    { ...queued(reader, queueLimit), lanes: 1 },
  );

  // A statement of a moment ago counts: the next one is on its way, or its answer is.
  const working = group(
    async (pids: number[]) => {
      const rows = await watcher.query<{ pid: number }>(workingStatement, [
        `{${pids.join()}}`,
        String(timeoutMs / 4),
      ]);
      const found = new Set(rows.map(({ pid }) => pid));
      return pids.map((pid) => found.has(pid));
    },
    queued(watcher, queueLimit),
  );

  /** Whether the server's process `pid` works, or did a moment ago. Rejects without one: the pool is connecting. */
  async function isWorkingOn(pid: number | undefined): Promise<boolean> {
    if (pid === undefined) throw new Unavailable("connecting");
    return await working.submit(pid);
  }

  // A disk that stalls is not a database that is gone. What it keeps waiting may be stored already, so that the same request,
  // sent again, would get 422.
  let notStoredAt = Number.NEGATIVE_INFINITY; // when persons could not be stored, and none was since
  const inserts = group(insertBatch, {
    ...queued(writer, batchSize),
    gatherMs,
    isWorking: () => isWorkingOn(writer.pid()),
    onStuck() {
      notStored();
      writer.reopen();
    },
  });
  function notStored() {
    notStoredAt = performance.now();
  }
  const longInserts = group(insertLong, {
    ...queued(aside, 1),
    queueLimit: Math.ceil(queueLimit / longsAre),
  });
  const finds = group(findBatch, queued(reader, batchSize));
  const searches = group(
    ([[statement, ...parameters] = ["", ""]]: [statement: string, ...parameters: string[]][]) =>
      searcher.query<Row>(statement, parameters).then((rows) => [rows.map(rowToJson)]),
    queued(searcher, 1),
  );
  // Persons that searches have found in memory.
  const hits = group(
    async (asked: Hit[][]) => {
      const all = asked.flat();
      const rows = await reader.query<Row>(hitsStatement, [`{${all.map(({ ctid }) => `"${ctid}"`).join()}}`]);
      const found = new Map(rows.map((row) => [row.id, rowToJson(row)]));
      await findMissing(
        found,
        all.map(({ id }) => id),
      ); // rows that were moved
      return asked.map((hits) => hits.flatMap(({ id }) => found.get(id) ?? []));
    },
    { ...queued(reader, searchesAtOnce), lanes: 1 },
  );
  const refreshes = group(
    async ([next, ...others]: (() => Promise<boolean>)[]) => {
      const isCurrent = (await next?.()) ?? true;
      return [next, ...others].map(() => isCurrent);
    },
    { ...queued(reader, queueLimit), lanes: 1 },
  );
  // All who wait when a count begins asked before it began: one answer is exact for each of them.
  const counts = group(
    async (asked: undefined[]) => {
      const [row] = await aside.query<{ n: string }>("select count(*) as n from pessoas", []);
      return asked.map(() => Number(row?.n));
    },
    { ...queued(aside, queueLimit), lanes: 1 },
  );

  const search = openSearch({
    held,
    query: reader.query,
    inTurn: refreshes.submit,
    async read(found) {
      const known = found.map(({ id }) => cached(id));
      const missing = found.filter((_, i) => known[i] === undefined);
      const read = missing.length === 0 ? [] : await hits.submit(missing);
      return [...known.filter((text) => text !== undefined), ...read];
    },
    ask: (...asked) => searches.submit([asked[0], ...asked[1]]),
    merge() {
      const merged = watched(
        merger.query("select pessoas_mesclar()", []),
        () => isWorkingOn(merger.pid()),
        timeoutMs / 2,
      );
      // Then the create that finds the list full will do it.
      merged.catch((error: Error) => {
        merger.reopen();
        log.debug(`not merged: ${error.message}`);
      });
    },
  });

  /**
   * One statement for all, committed and flushed when it returns. Rows go in the order of their ids: two
   * instances whose batches overlap in another order would deadlock.
   */
  async function insertBatch(items: (Entry | typeof probe)[]): Promise<Outcome[]> {
    const entries = items.filter((item) => item !== probe);
    if (entries.length === 0) await writer.query(citus ? readStatement : probeStatement, []);
    const outcomes = (entries.length === 0 ? [] : await insertHalving(entries).catch(failed)).values();
    if (entries.length > 0) notStoredAt = Number.NEGATIVE_INFINITY;
    return items.map((item) => (item === probe ? "created" : (outcomes.next().value as Outcome)));
  }

  function failed(error: unknown): never {
    notStored();
    throw error;
  }

  async function insertHalving(entries: Entry[]): Promise<Outcome[]> {
    const sorted = entries.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    try {
      const created = await insert(writer, sorted);
      // Of several with one id in this batch the first is the one that was stored.
      return entries.map(({ id }) => (created.delete(id) ? "created" : "taken"));
    } catch (error) {
      if (!isRowError(error)) throw error;
      if (entries.length === 1) return ["refused"];
      // Nothing of this batch was stored. Halving it finds the row to blame, and keeps its neighbours.
      const half = entries.length >> 1;
      const first = await insertHalving(entries.slice(0, half));
      return [...first, ...(await insertHalving(entries.slice(half)))];
    }
  }

  /** One person, whose text is long: that work must not keep those in the same batch waiting. */
  async function insertLong(entries: Entry[]): Promise<Outcome[]> {
    try {
      return [(await insert(aside, entries)).size === 1 ? "created" : "taken"];
    } catch (error) {
      if (!isRowError(error)) throw error;
      return ["refused"];
    }
  }

  /** Resolves with the ids that are new. */
  async function insert(through: Pool, entries: Entry[]): Promise<Set<string>> {
    const terms = wantingRows(entries, search.wanting);
    const ids = await (citus && terms.size > 0
      ? through.transaction((query) => insertInParts(query, entries, terms))
      : insertInto(through.query, entries, terms));
    search.stored(
      storedOf(entries, ids).map(({ searchable }) => searchable),
      ids.flatMap((id) => terms.get(id) ?? []),
    );
    return new Set(ids);
  }

  const nearest =
    copy &&
    replica({
      ask: (ids) => findAt(copy, ids),
      patienceMs,
      abandon: copy.reopen,
      tell: (message) => log.warn(`DATABASE_URL_READ: ${message}`),
    });

  async function findBatch(ids: string[]): Promise<(string | undefined)[]> {
    const found = (await nearest?.find(ids)) ?? new Map<string, string>();
    await findMissing(found, ids);
    return ids.map((id) => found.get(id));
  }

  /** Adds those of `ids` that are not in `found` yet. */
  async function findMissing(found: Map<string, string>, ids: string[]): Promise<void> {
    const missing = found.size === 0 ? ids : ids.filter((id) => !found.has(id));
    if (missing.length === 0) return;
    for (const [id, text] of await findAt(reader, missing)) found.set(id, text);
  }

  async function findAt(from: Pool, ids: string[]): Promise<Map<string, string>> {
    const [id = ""] = ids;
    // Alone, an id takes a quarter less CPU with `=`; and that Citus plans once, for a single shard.
    const rows =
      ids.length === 1
        ? await from.query<Row>(`select ${columns} from pessoas where id = $1`, [id])
        : await from.query<Row>(`select ${columns} from pessoas where id = any ($1::uuid[])`, [
            `{${ids.join()}}`,
          ]);
    return new Map(rows.map((row) => [row.id, rowToJson(row)]));
  }

  return {
    async migrate() {
      const connections = own.reduce((sum, { max }) => sum + max, 0);
      await checkSessions(
        url,
        connections,
        AbortSignal.any([closing.signal, AbortSignal.timeout(2 * timeoutMs)]),
      );
      const { indexOnly, ...known } = await migrate(url, isWorkingOn, timeoutMs, closing.signal);
      citus = indexOnly;
      if (citus) for (const each of [reader, searcher]) each.reopen();
      await search.start({ indexOnly, ...known });
    },
    insertPessoa(pessoa) {
      const entry = entryOf(pessoa, search.searchableOf);
      return (isLong(entry) ? longInserts : inserts).submit(entry);
    },
    fullOfLong: longInserts.full,
    findPessoa: finds.submit,
    searchPessoas: search.find,
    countPessoas: () => counts.submit(undefined),
    async ping() {
      await Promise.all([pings.submit(undefined), inserts.submit(probe)]);
      // The probe is smaller than a person: it passes where a person does not. Without creates that fail it has the last word.
      const ageMs = performance.now() - notStoredAt;
      if (ageMs < whileWorking * timeoutMs + notStoredMs) throw new Unavailable("creates are not stored");
    },
    stats: () => ({
      insert: inserts.stats(),
      insertLong: longInserts.stats(),
      find: finds.stats(),
      search: searches.stats(),
    }),
    memoryStats: search.stats,
    replicaStats: () => nearest?.stats(),
    async close() {
      closing.abort(new Unavailable("the server stops"));
      nearest?.close();
      search.close();
      await Promise.all(pools.map((each) => each.close(timeoutMs)));
    },
  };
}

function rowToJson(row: Row): string {
  return toJson(row, row.stack);
}

/** A person to be stored: the values of storedColumns, as texts, and what is searched. */
export type Entry = { id: string; row: (string | null)[]; bytes: number; searchable: Searchable };

/** What is to be stored of `pessoa`. */
export function entryOf(pessoa: Pessoa, searchableOf: Search["searchableOf"]): Entry {
  const { id, apelido, nome, nascimento } = pessoa;
  const stack = pessoa.stack && JSON.stringify(pessoa.stack);
  const bytes = Buffer.byteLength(apelido) + Buffer.byteLength(nome) + Buffer.byteLength(stack ?? "");
  const searchable = searchableOf(pessoa, bytes);
  return { id, row: [id, apelido, nome, nascimento, stack, searchable.text], bytes, searchable };
}

const isLong = ({ bytes }: Entry) => bytes > longestInBatch;

/** Of several with one id the first is the one that was stored. */
function storedOf(entries: Entry[], created: string[]): Entry[] {
  const ids = new Set(created);
  return entries.filter(({ id }) => ids.delete(id));
}

/** Short terms that want rows, by the person who has them. */
type Terms = Map<string, string[]>;

function wantingRows(entries: Entry[], wanting: Search["wanting"]): Terms {
  const terms: Terms = new Map();
  for (const { id, searchable } of entries) {
    if (searchable.text === null || terms.has(id)) continue;
    const its = wanting(searchable.fields);
    if (its.length > 0) terms.set(id, its);
  }
  return terms;
}

/**
 * Inserts persons and, for those that are new, their short terms. Resolves with the new ids. One statement: a client that is lost
 * in the middle of a transaction would leave it open, with its rows locked.
 */
async function insertInto(query: Query, entries: Entry[], terms: Terms): Promise<string[]> {
  const values = entries.flatMap(({ row }) => row);
  const created =
    terms.size === 0
      ? await query<{ id: string }>(insertStatement(entries.length), values)
      : await query<{ id: string }>(insertWithTermsStatement(entries.length), [...values, toJsonText(terms)]);
  return created.map(({ id }) => id);
}

/** The same within a transaction: Citus refuses one statement that inserts into two distributed tables. */
async function insertInParts(query: Query, entries: Entry[], terms: Terms): Promise<string[]> {
  const created = await insertInto(query, entries, new Map());
  const theirs = new Map([...terms].filter(([id]) => created.includes(id)));
  if (theirs.size > 0) await query(termsStatement, [toJsonText(theirs)]);
  return created;
}

const toJsonText = (terms: Terms) => JSON.stringify(Object.fromEntries(terms));

const termsStatement = `
  insert into curtos (termo, id)
  select termo, id::uuid from json_each($1) as person (id, termos), json_array_elements_text(termos) as termo`;

/** `insert … values ($1, …), ($7, …), … on conflict do nothing returning id`, once for each number of rows. */
const insertStatement = once(
  (rows) =>
    `insert into pessoas (${storedColumns}) values ${Array.from(
      { length: rows },
      (_, row) => `(${Array.from({ length: 6 }, (_, column) => `$${row * 6 + column + 1}`).join()})`,
    ).join()} on conflict do nothing returning id`,
);

const insertWithTermsStatement = once(
  (rows) => `
  with created as (${insertStatement(rows)}),
  entered as (
    insert into curtos (termo, id) select termo, created.id
    from json_each($${6 * rows + 1}) as person (id, termos)
      join created on created.id = person.id::uuid, json_array_elements_text(termos) as termo
  )
  select id from created`,
);

/** Remembers what `make` made of each number. */
function once(make: (n: number) => string): (n: number) => string {
  const made: string[] = [];
  return (n) => (made[n] ??= make(n));
}

// "pessoas" in ASCII: all instances take the same advisory lock.
const migrationLock = "31636743923917171";
const schemaVersion = Number(/^comment on table pessoas is 'version (\d+)'/m.exec(schema)?.[1]);
// While a change of the schema waits for its locks, creates wait behind it.
const lockTimeoutMs = 50;
const orphanTimeoutMs = 5000;

type Database = { there: boolean; mine: boolean; version: number; whole: boolean; citus: boolean };

/**
 * Makes or changes the schema where it is not as it should be; that takes locks which creates would wait for, and looking at it
 * takes none. Resolves with what searches have to know.
 */
async function migrate(
  url: string,
  isWorkingOn: (pid: number | undefined) => Promise<boolean>,
  timeoutMs: number,
  closing: AbortSignal,
): Promise<Known> {
  closing.throwIfAborted();
  const sql = connect(url, 1, { idle_in_transaction_session_timeout: String(orphanTimeoutMs) });
  const end = () => sql.end({ timeout: 0 });
  closing.addEventListener("abort", end);
  let pid: number | undefined;
  async function work() {
    pid = (await sql<{ pid: number }[]>`select pg_backend_pid() as pid`)[0]?.pid;
    const warnings = await checkServer(sql);
    const found = await look(sql);
    if (!isCurrent(found) && found.mine) await change(sql, found, timeoutMs);
    await sql.unsafe(
      `select ${storedColumns}, tx from pessoas limit 0; select termo, id from curtos limit 0`,
    );
    await checkSchema(sql);
    if (!found.mine && found.version !== schemaVersion) throw otherVersion(found);
    for (const warning of warnings) log.warn(`DATABASE_URL: ${warning}`);
    const full = await sql.unsafe<{ termo: string }[]>(fullStatement);
    const texts = await sql.unsafe<{ text: string }[]>(textsStatement);
    return {
      indexOnly: found.citus,
      full: full.map(({ termo }) => termo),
      texts: texts.map(({ text }) => text),
    };
  }
  try {
    return await watched(work(), () => isWorkingOn(pid), timeoutMs / 2);
  } catch (error) {
    if ((error as { code?: string }).code !== "55P03") refuse(error, url);
    const message = "the schema is changed as soon as no transaction holds its tables";
    throw new Unavailable(message, { cause: error });
  } finally {
    closing.removeEventListener("abort", end);
    await end();
  }
}

/** What is there. `mine`: this role may change it. `whole`: nothing of it is missing. */
async function look(sql: Pick<postgres.Sql, "unsafe">): Promise<Database> {
  const [found] = await sql.unsafe<Database[]>(`
    select pessoas is not null as there,
      coalesce((select pg_has_role(relowner, 'usage') from pg_class where oid = pessoas), true) as mine,
      coalesce(substring(obj_description(pessoas, 'pg_class') from '^version ([0-9]+)$')::int, 0) as version,
      to_regclass('curtos') is not null and to_regclass('pessoas_tx') is not null
        and to_regclass('pessoas_busca') is not null and (citus or to_regprocedure('pessoas_mesclar()') is not null) as whole,
      citus
    from (select to_regclass('pessoas') as pessoas,
      exists (select from pg_extension where extname = 'citus') as citus) as those`);
  if (!found) throw new Error("no row");
  if (!found.citus || !found.whole) return found;
  const parted = await sql.unsafe(
    "select from pg_dist_partition where logicalrelid in (to_regclass('pessoas'), to_regclass('curtos'))",
  );
  const forMemory = await sql.unsafe("select from pessoas where busca is null limit 1");
  return { ...found, whole: parted.length === 2 && forMemory.length === 0 };
}

const isCurrent = ({ version, whole }: Database) => version === schemaVersion && whole;

function otherVersion({ version }: Database): RangeError {
  return new RangeError(
    version > schemaVersion
      ? `DATABASE_URL: the table pessoas is of version ${version}, and this server knows ${schemaVersion}; start a newer one`
      : `DATABASE_URL: the table pessoas is of an earlier version; a server whose role owns it converts it at its start`,
  );
}

/** In one transaction, which gives up where others hold the tables. */
async function change(sql: postgres.Sql, { there }: Database, timeoutMs: number): Promise<void> {
  const changed = await sql.begin(async (transaction) => {
    await transaction`select set_config('lock_timeout', ${String(timeoutMs)}, true)`;
    await transaction`select pg_advisory_xact_lock(${migrationLock})`;
    const found = await look(transaction); // another instance may have been faster
    if (isCurrent(found)) return false;
    if (found.version > schemaVersion) throw otherVersion(found);
    await transaction`select set_config('lock_timeout', ${String(lockTimeoutMs)}, true)`;
    if (found.there && found.version < schemaVersion) {
      await checkSchema(transaction, convertible); // it may be somebody else's table
      await convert(transaction);
    } else await transaction.unsafe(schema);
    if (found.citus) await moveToIndex(transaction);
    return true;
  });
  if (there && changed) log.info(`the schema of DATABASE_URL was brought to version ${schemaVersion}`);
}

/** Persons who were for the memory of instances before their database became Citus get their texts and short terms. */
async function moveToIndex(transaction: Pick<postgres.Sql, "unsafe">): Promise<void> {
  const query = queryOn(transaction);
  const short = shortTerms(Number.POSITIVE_INFINITY);
  for (;;) {
    const rows = await query<Row>(`select ${columns} from pessoas where busca is null limit 500`, []);
    if (rows.length === 0) return;
    for (const row of rows) {
      const { fields, text } = searchable({ ...row, stack: row.stack && JSON.parse(row.stack) });
      await query("update pessoas set busca = $2 where id = $1", [row.id, text]);
      const terms = short.wanting(fields, () => false);
      if (terms.length > 0) await query(termsStatement, [toJsonText(new Map([[row.id, terms]]))]);
      short.added(terms);
    }
  }
}

/** The table of an earlier version, which had other texts in `busca`: each of its persons is inserted anew. */
async function convert(transaction: Pick<postgres.Sql, "unsafe">): Promise<void> {
  await transaction.unsafe(`
    alter table pessoas rename to pessoas_before;
    alter index pessoas_pkey rename to pessoas_before_pkey;
    drop index if exists pessoas_cedo, pessoas_tarde, pessoas_busca;
    drop table if exists trechos, curtos;
    ${schema}`);
  const query = queryOn(transaction);
  const short = shortTerms(Number.POSITIVE_INFINITY);
  const searchableOf = inBulk(0);
  for (let last = "00000000-0000-0000-0000-000000000000"; ; ) {
    const rows = await query<Row>(
      `select ${columns} from pessoas_before where id > $1 order by id limit 500`,
      [last],
    );
    const entries = rows.map((row) =>
      entryOf({ ...row, stack: row.stack && JSON.parse(row.stack) }, searchableOf),
    );
    const others = entries.filter((entry) => !isLong(entry));
    for (const part of [others, ...entries.filter(isLong).map((entry) => [entry])]) {
      const terms = wantingRows(part, (fields) => short.wanting(fields, () => false));
      if (part.length > 0) await insertInto(query, part, terms);
      short.added([...terms.values()].flat());
    }
    const end = rows.at(-1);
    if (end === undefined) break;
    last = end.id;
  }
  await transaction.unsafe("drop table pessoas_before");
}
