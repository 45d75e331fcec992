import type postgres from "postgres";
import { searchable, wanted } from "./busca.ts";
import { checkSchema, checkServer, checkSessions, convertible, refuse, warnOfIgnored } from "./checks.ts";
import { type CommonElements, commonElements } from "./comuns.ts";
import { enough, type ShortTerms, shortTerms, textOf } from "./curtos.ts";
import { group, Unavailable, whileWorking } from "./group.ts";
import * as log from "./log.ts";
import { merges } from "./merges.ts";
import { type Pessoa, toJson } from "./pessoa.ts";
import { openPool, type Pool, type Query, watched } from "./pool.ts";
import { rarity } from "./raros.ts";
import { type ReplicaStats, replica } from "./replica.ts";
import schema from "./schema.sql" with { type: "text" };
import { connect, isRowError } from "./session.ts";

export { Unavailable };

export type DbOptions = {
  /** As for psql (address.ts). */
  url: string;
  /** The same for a replica of it, which answers reads by id where it can. */
  readUrl?: string | undefined;
  /** After this long a query is given up. */
  timeoutMs: number;
  /** Persons that one insert may take. */
  batchSize: number;
  /** How long a create waits for others while they come more often than every six times that; default 0. */
  gatherMs?: number;
  /** Searches at once, each on a connection. */
  searches: number;
  /** Creates, reads by id and searches that may wait, each. */
  queueLimit: number;
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
  /** Undefined where there is none. */
  replicaStats(): ReplicaStats | undefined;
  close(): Promise<void>;
};

type Row = { id: string; apelido: string; nome: string; nascimento: string; stack: string | null };
const columns = "id, apelido, nome, nascimento, stack";
/** The columns of what is stored of a person, in the order of an Entry's row. */
export const storedColumns = `${columns}, busca`;
// The first persons are in one index, all others in another (schema.sql).
const [, firstPersons = ""] = /n <= (\d+)/.exec(schema) ?? [];
const among = {
  first: `(select ${columns} from pessoas where n <= ${firstPersons} and busca like '%' || $1::text || '%' limit ${enough})`,
  later: `(select ${columns} from pessoas where n > ${firstPersons} and busca like $2 and strpos(busca, $1::text) > 0 limit ${enough})`,
};
const searchStatement = `${among.first} union all ${among.later} limit ${enough}`;
// A rare trigram alone leads to all branches of the first index, whose leaves hold few that have it. The later one may know
// 50 of them at once; of what many hold it would have to collect all.
const rareStatement = `${among.later} union all ${among.first} limit ${enough}`;
const shortStatement = `select ${columns} from curtos join pessoas using (id) where termo = $1 limit ${enough}`;
const termsStatement = `
  insert into curtos (termo, id) select termo, id::uuid from json_each($1) as person (id, termos), json_array_elements_text(termos) as termo`;
const readStatement = "select 1 from pessoas limit 1";
// Stores nothing, and needs all that a create needs: its table lock, its right, a server that takes writes.
const probeStatement = `insert into pessoas (${storedColumns}) select ${storedColumns} from pessoas where false`;
const workingStatement = `
  select pid from pg_stat_activity where pid = any ($1::int[])
    and (state = 'active' or state_change > clock_timestamp() - $2::float8 * interval '1 ms')`;
/** Takes the place of a person in a batch, to learn whether one could be stored now. */
const probe = Symbol("probe");
// An entry of the first index has to fit into a page: 2,700 trigrams. Longer ones are to be found among the later ones.
const longest = 2500;
const longestStack = 2 * longest; // as JSON: the text of one that repeats itself is short
const late = String(Number.MAX_SAFE_INTEGER);
// So many times as much memory as others long persons take while they wait: up to 64 KB of JSON.
const longsAre = 32;
const notStoredMs = 1000;
const mergerIdleS = 1; // Postgres keeps some of the memory that a merge takes for as long as the connection is there
const shortTermsKnown = 100_000;
const elementsKnown = 10_000;
const learnFromOneIn = 256;
// A search stops at its 50th hit; a bitmap of the first index would hold all of them. Where pages cost nothing, Postgres
// takes one only where there is no other way: in the second. And a plan for any term is the plan for each: making one anew
// takes a fifth of a search.
const searchPlans = {
  enable_seqscan: "off",
  random_page_cost: "0",
  seq_page_cost: "0",
  plan_cache_mode: "force_generic_plan",
};

export function openDb({
  url,
  readUrl,
  timeoutMs,
  batchSize,
  gatherMs = 0,
  searches: atOnce,
  queueLimit,
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
  const reader = openPool({ url, max: 1, settings: () => limited });
  let plans: Record<string, string> = searchPlans;
  let citus = false;
  const short = shortTerms(shortTermsKnown);
  const common = commonElements(elementsKnown);
  const rare = rarity();
  let inserted = 0;
  const searcher = openPool({ url, max: atOnce, settings: () => ({ ...limited, ...plans }) });
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

  /** Whether the server works on the latest statement of `of`. Rejects when that is not on a connection yet. */
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
  // All who wait when a count begins asked before it began: one answer is exact for each of them.
  const counts = group(
    async (asked: undefined[]) => {
      const [row] = await aside.query<{ n: string }>("select count(*) as n from pessoas", []);
      return asked.map(() => Number(row?.n));
    },
    { ...queued(aside, queueLimit), lanes: 1 },
  );

  // If a merge fails, the create that finds the list full will do it.
  const merging = merges(() => {
    const merged = watched(
      merger.query("select pessoas_mesclar()", []),
      () => isWorkingOn(merger.pid()),
      timeoutMs / 2,
    );
    merged.catch((error: Error) => {
      merger.reopen();
      log.debug(`not merged: ${error.message}`);
    });
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
    const created = await (citus
      ? insertOnCitus(through, entries, short)
      : insertInto(through.query, entries, short));
    for (const { n } of created) {
      if (Number(n) > Number(firstPersons)) merging.created(Number(n));
    }
    for (const { elements } of storedOf(entries, created)) common.stored(elements);
    for (const { row } of entries) if (inserted++ % learnFromOneIn === 0) rare.learn(row[5] as string);
    return new Set(created.map(({ id }) => id));
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
    const missing = found.size === 0 ? ids : ids.filter((id) => !found.has(id));
    if (missing.length > 0) {
      for (const [id, text] of await findAt(reader, missing)) found.set(id, text);
    }
    return ids.map((id) => found.get(id));
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
      const found = await migrate(url, isWorkingOn, timeoutMs, closing.signal);
      short.full(found.full);
      for (const text of found.texts) rare.learn(text);
      citus = found.citus;
      if (!citus) return;
      // Which shards to ask, and with what, Citus plans for each term: a plan for any term is an error there.
      plans = {};
      searcher.reopen();
    },
    insertPessoa(pessoa) {
      const entry = entryOf(pessoa, common);
      return (isLong(entry) ? longInserts : inserts).submit(entry);
    },
    fullOfLong: longInserts.full,
    findPessoa: finds.submit,
    async searchPessoas(term) {
      const what = wanted(term);
      if (what === undefined) return [];
      if ("short" in what) return await searches.submit([shortStatement, what.short]);
      merging.searched();
      const statement = rare.isRare(what.text) ? rareStatement : searchStatement;
      return await searches.submit([statement, what.text, rare.pattern(what.text)]);
    },
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
    replicaStats: () => nearest?.stats(),
    async close() {
      closing.abort(new Unavailable("the server stops"));
      nearest?.close();
      merging.stop();
      await Promise.all(pools.map((each) => each.close(timeoutMs)));
    },
  };
}

function rowToJson(row: Row): string {
  return toJson(row, row.stack);
}

/**
 * What is to be stored of a person: the values of storedColumns, as texts, the fields that are searched, and those of
 * them that are elements of the stack.
 */
export type Entry = { id: string; row: (string | null)[]; fields: string[]; elements: Set<string> };

/** What is to be stored of `p`, who need not be found by what is `common`. */
export function entryOf(p: Pessoa, common: CommonElements): Entry {
  const { fields, elements, text } = searchable(p, common.has);
  const row = [p.id, p.apelido, p.nome, p.nascimento, p.stack && JSON.stringify(p.stack), text];
  return { id: p.id, row, fields, elements };
}

const isLong = ({ row: [, , , , stack, text] }: Entry) =>
  (text as string).length > longest || (stack ?? "").length > longestStack;

type Created = { id: string; n: string };

/** Of several with one id the first is the one that was stored. */
function storedOf(entries: Entry[], created: Created[]): Entry[] {
  const ids = new Set(created.map(({ id }) => id));
  return entries.filter(({ id }) => ids.delete(id));
}

/**
 * Either one long person, or any number of others, with their short terms that want rows. Resolves with those that are new. One
 * statement: a client that is lost in the middle of a transaction would leave it open, with its rows locked.
 */
async function insertInto(query: Query, entries: Entry[], short: ShortTerms): Promise<Created[]> {
  const missing = missingTerms(entries, short);
  if (missing.size === 0) return await query(insertStatement(entries), parametersOf(entries));
  const statement = withTerms(insertStatement(entries), parametersOf(entries).length + 1);
  const created = await query<Created>(statement, [...parametersOf(entries), termsJson(missing)]);
  short.added(created.flatMap(({ id }) => missing.get(id) ?? []));
  return created;
}

/** The same in a transaction: Citus refuses one statement that inserts into two distributed tables. */
async function insertOnCitus(through: Pool, entries: Entry[], short: ShortTerms): Promise<Created[]> {
  const missing = missingTerms(entries, short);
  if (missing.size === 0) return await through.query(insertStatement(entries), parametersOf(entries));
  const created = await through.transaction(async (query) => {
    const inserted = await query<Created>(insertStatement(entries), parametersOf(entries));
    const theirs = inserted.flatMap(({ id }) =>
      missing.has(id) ? [[id, missing.get(id) as number[]] as const] : [],
    );
    if (theirs.length > 0) await query(termsStatement, [termsJson(new Map(theirs))]);
    return inserted;
  });
  short.added(created.flatMap(({ id }) => missing.get(id) ?? []));
  return created;
}

/** The short terms that want a row, by person. */
function missingTerms(entries: Entry[], short: ShortTerms): Map<string, number[]> {
  const missing = new Map<string, number[]>();
  for (const { id, fields } of entries) {
    if (missing.has(id)) continue; // the first one of an id is the one that is stored
    const terms = short.missing(fields);
    if (terms.length > 0) missing.set(id, terms);
  }
  return missing;
}

const termsJson = (terms: Map<string, number[]>) =>
  JSON.stringify(Object.fromEntries([...terms].map(([id, its]) => [id, its.map(textOf)])));

const parametersOf = (entries: Entry[]): (string | null)[] =>
  isLong(entries[0] as Entry) ? [...(entries[0] as Entry).row, late] : entries.flatMap(({ row }) => row);

const insertStatement = (entries: Entry[]): string =>
  isLong(entries[0] as Entry) ? longStatement : valuesStatement(entries.length);

/** `insert` also enters the short terms of those that are new, from the parameter with this number. */
const withTerms = (insert: string, parameter: number): string => `
  with created as (${insert}),
  entered as (
    insert into curtos (termo, id) select termo, created.id
    from json_each($${parameter}) as person (id, termos)
      join created on created.id = person.id::uuid, json_array_elements_text(termos) as termo
  )
  select id, n from created`;

const longStatement = `insert into pessoas (${storedColumns}, n) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning id, n`;
const insertStatements: string[] = [];

/** `insert … values ($1, …), ($7, …), … on conflict do nothing returning id, n`, once for each number of rows. */
function valuesStatement(rows: number): string {
  insertStatements[rows] ??= `insert into pessoas (${storedColumns}) values ${Array.from(
    { length: rows },
    (_, row) => `(${Array.from({ length: 6 }, (_, column) => `$${row * 6 + column + 1}`).join()})`,
  ).join()} on conflict do nothing returning id, n`;
  return insertStatements[rows];
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
 * takes none. Resolves with whether it is Citus, with the short terms that have rows enough, and with some search texts.
 */
async function migrate(
  url: string,
  isWorkingOn: (pid: number | undefined) => Promise<boolean>,
  timeoutMs: number,
  closing: AbortSignal,
): Promise<{ citus: boolean; full: string[]; texts: string[] }> {
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
    await sql.unsafe(`select ${storedColumns}, n from pessoas limit 0; select termo, id from curtos limit 0`);
    await checkSchema(sql);
    if (!found.mine && found.version !== schemaVersion) throw otherVersion(found);
    for (const warning of warnings) log.warn(`DATABASE_URL: ${warning}`);
    const full = await sql<{ termo: string }[]>`
      select termo from curtos group by termo having count(*) >= ${enough} limit ${shortTermsKnown}`;
    const texts = await sql<{ text: string }[]>`select left(busca, 1000) as text from pessoas limit 1000`;
    return {
      citus: found.citus,
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
      to_regclass('curtos') is not null and to_regclass('pessoas_cedo') is not null
        and to_regclass('pessoas_tarde') is not null and (citus or to_regprocedure('pessoas_mesclar()') is not null) as whole,
      citus
    from (select to_regclass('pessoas') as pessoas,
      exists (select from pg_extension where extname = 'citus') as citus) as those`);
  if (!found) throw new Error("no row");
  if (!found.citus || !found.whole) return found;
  const parted = await sql.unsafe(
    "select from pg_dist_partition where logicalrelid in (to_regclass('pessoas'), to_regclass('curtos'))",
  );
  return { ...found, whole: parted.length === 2 };
}

const isCurrent = ({ version, whole }: Database) => version === schemaVersion && whole;

function otherVersion({ there, version }: Database): RangeError {
  if (!there)
    return new RangeError(
      "DATABASE_URL: there is no table pessoas; apply schema.sql as the database's owner",
    );
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
    return true;
  });
  if (there && changed) log.info(`the schema of DATABASE_URL was brought to version ${schemaVersion}`);
}

/** The table of an earlier version, which had other texts in `busca`: each of its persons is inserted anew. */
async function convert(transaction: Pick<postgres.Sql, "unsafe">): Promise<void> {
  await transaction.unsafe(`
    alter table pessoas rename to pessoas_before;
    alter index pessoas_pkey rename to pessoas_before_pkey;
    drop index if exists pessoas_cedo, pessoas_tarde;
    drop table if exists trechos, curtos;
    ${schema}`);
  const query: Query = async <T extends object>(text: string, parameters: (string | null)[]) =>
    await transaction.unsafe<T[]>(text, parameters, { prepare: true });
  const short = shortTerms(shortTermsKnown);
  const common = commonElements(elementsKnown);
  for (let last = "00000000-0000-0000-0000-000000000000"; ; ) {
    const rows = await query<Row>(
      `select ${columns} from pessoas_before where id > $1 order by id limit 500`,
      [last],
    );
    const entries = rows.map((row) => entryOf({ ...row, stack: row.stack && JSON.parse(row.stack) }, common));
    const others = entries.filter((entry) => !isLong(entry));
    for (const part of [others, ...entries.filter(isLong).map((entry) => [entry])]) {
      if (part.length > 0) await insertInto(query, part, short);
    }
    for (const { elements } of entries) common.stored(elements);
    const end = rows.at(-1);
    if (end === undefined) break;
    last = end.id;
  }
  await transaction.unsafe("drop table pessoas_before");
}
