import postgres from "postgres";
import { searchable, wanted } from "./busca.ts";
import { type CommonElements, commonElements } from "./comuns.ts";
import { enough, type ShortTerms, shortTerms, textOf } from "./curtos.ts";
import { group, Unavailable, whileAlive } from "./group.ts";
import * as log from "./log.ts";
import { merges } from "./merges.ts";
import { type Pessoa, toJson } from "./pessoa.ts";
import { rarity } from "./raros.ts";
import { type ReplicaStats, replica } from "./replica.ts";
import schema from "./schema.sql" with { type: "text" };

export { Unavailable };

export type DbOptions = {
  /** As for psql. `?host=/directory` connects through the Unix socket there. */
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
   * that it is there. RangeError: DATABASE_URL is refused, or may do too little.
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
  /** Resolves when the database answers. */
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
// An entry of the first index has to fit into a page: 2,700 trigrams. Longer ones are to be found among the later ones.
const longest = 2500;
const longestStack = 2 * longest; // as JSON: the text of one that repeats itself is short
const late = String(Number.MAX_SAFE_INTEGER);
// So many times as much memory as others long persons take while they wait: up to 64 KB of JSON.
const longsAre = 32;
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

// Dates and json travel as the texts they are: no Date object, no second parsing.
const asText = { serialize: (text: string) => text, parse: (text: string) => text };
const types = { date: { to: 1082, from: [1082], ...asText }, json: { to: 114, from: [114], ...asText } };

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
  const writer = pool(1, () => ({ statement_timeout: String(whileAlive * timeoutMs) }));
  const aside = pool(1); // for what is rare and takes long: huge persons and counts
  const merger = pool(1, () => ({ statement_timeout: "0" }), url, mergerIdleS); // what takes longest
  const reader = pool(1);
  let plans: Record<string, string> = searchPlans;
  const short = shortTerms(shortTermsKnown);
  const common = commonElements(elementsKnown);
  const rare = rarity();
  let inserted = 0;
  const searcher = pool(atOnce, () => plans);
  const patienceMs = Math.ceil(timeoutMs / 5); // for a replica
  const limit = { statement_timeout: String(patienceMs) };
  const copy = readUrl === undefined ? undefined : pool(1, () => limit, readUrl);
  const pools = [writer, aside, merger, reader, searcher, ...(copy ? [copy] : [])];

  function pool(max: number, settings: () => Record<string, string> = () => ({}), address = url, idleS = 0) {
    const open = () => connect(address, max, { statement_timeout: String(timeoutMs), ...settings() }, idleS);
    let sql = open();
    return {
      max,
      query: <T extends object>(text: string, parameters: (string | null)[]) =>
        queryOn(sql)<T>(text, parameters).catch(rethrow),
      /** One transaction, and one round trip for each of its statements. */
      async transaction<T>(run: (query: Query) => Promise<T>): Promise<T> {
        return (await sql.begin((own) => run(queryOn(own))).catch(rethrow)) as T;
      },
      /** Abandons connections that no longer answer. What is in flight on them rejects as Unavailable. */
      reopen() {
        void sql.end({ timeout: 0 });
        sql = open();
      },
      close: () => sql.end({ timeout: timeoutMs / 1000 }),
    };
  }

  const queued = (of: ReturnType<typeof pool>, size: number) => ({
    lanes: of.max,
    size,
    queueLimit,
    timeoutMs,
    onStuck: of.reopen,
  });

  const pings = group(
    async (asked: undefined[]) => {
      await reader.query("select 1 from pessoas limit 1", []);
      return asked.map(() => undefined);
    },
    { ...queued(reader, queueLimit), lanes: 1 },
  );
  const ping = () => pings.submit(undefined);

  // A disk that stalls is not a database that is gone; and whom it keeps waiting may be stored already, so that the same
  // request, sent again, would get 422.
  const inserts = group(insertBatch, { ...queued(writer, batchSize), gatherMs, isAlive: ping });
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
    const merged = merger.query("select pessoas_mesclar()", []);
    merged.catch((error: Error) => log.debug(`not merged: ${error.message}`));
  });

  /**
   * One statement for all, committed and flushed when it returns. Rows go in the order of their ids: two
   * instances whose batches overlap in another order would deadlock.
   */
  async function insertBatch(entries: Entry[]): Promise<Outcome[]> {
    const sorted = entries.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    try {
      const created = await insert(writer, sorted);
      // Of several with one id in this batch the first is the one that was stored.
      return entries.map(({ id }) => (created.delete(id) ? "created" : "taken"));
    } catch (error) {
      if (!isRowError(error)) throw error;
      if (entries.length === 1) return ["refused"];
      // Nothing of this batch was stored. Halving it finds the row to blame, and keeps its neighbours.
      const half = entries.length >> 1;
      const first = await insertBatch(entries.slice(0, half));
      return [...first, ...(await insertBatch(entries.slice(half)))];
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
  async function insert(through: ReturnType<typeof pool>, entries: Entry[]): Promise<Set<string>> {
    let created: Created[];
    if (entries.every(({ fields }) => short.missing(fields).length === 0)) {
      created = await insertInto(through.query, entries);
    } else {
      const entered: number[] = [];
      created = await through.transaction((query) => insertWithTerms(query, entries, short, entered));
      short.added(entered);
    }
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

  async function findAt(from: ReturnType<typeof pool>, ids: string[]): Promise<Map<string, string>> {
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
      const { citus, full, texts } = await migrate(url);
      short.full(full);
      for (const text of texts) rare.learn(text);
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
    ping,
    stats: () => ({
      insert: inserts.stats(),
      insertLong: longInserts.stats(),
      find: finds.stats(),
      search: searches.stats(),
    }),
    replicaStats: () => nearest?.stats(),
    async close() {
      nearest?.close();
      merging.stop();
      await Promise.all(pools.map((each) => each.close()));
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

type Query = <T extends object>(text: string, parameters: (string | null)[]) => Promise<T[]>;

const queryOn =
  (sql: Pick<postgres.Sql, "unsafe">): Query =>
  async <T extends object>(text: string, parameters: (string | null)[]) =>
    await sql.unsafe<T[]>(text, parameters, { prepare: true });

type Created = { id: string; n: string };

/** Either one long person, or any number of others. Resolves with those that are new. */
function insertInto(query: Query, entries: Entry[]): Promise<Created[]> {
  const [first] = entries as [Entry];
  return isLong(first)
    ? query(longStatement, [...first.row, late])
    : query(
        insertStatement(entries.length),
        entries.flatMap(({ row }) => row),
      );
}

/** Of several with one id the first is the one that was stored. */
function storedOf(entries: Entry[], created: Created[]): Entry[] {
  const ids = new Set(created.map(({ id }) => id));
  return entries.filter(({ id }) => ids.delete(id));
}

/** The same, and their short terms that want rows, within a transaction. Those go into `entered`, too. */
async function insertWithTerms(query: Query, entries: Entry[], short: ShortTerms, entered: number[]) {
  const created = await insertInto(query, entries);
  const terms: Record<string, string[]> = {};
  for (const { id, fields } of storedOf(entries, created)) {
    const missing = short.missing(fields);
    terms[id] = missing.map(textOf);
    for (const term of missing) entered.push(term);
  }
  if (entered.length > 0) await query(termsStatement, [JSON.stringify(terms)]);
  return created;
}

const longStatement = `insert into pessoas (${storedColumns}, n) values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning id, n`;
const insertStatements: string[] = [];

/** `insert … values ($1, …), ($7, …), … on conflict do nothing returning id, n`, once for each number of rows. */
function insertStatement(rows: number): string {
  insertStatements[rows] ??= `insert into pessoas (${storedColumns}) values ${Array.from(
    { length: rows },
    (_, row) => `(${Array.from({ length: 6 }, (_, column) => `$${row * 6 + column + 1}`).join()})`,
  ).join()} on conflict do nothing returning id, n`;
  return insertStatements[rows];
}

// "pessoas" in ASCII: all instances take the same advisory lock.
const migrationLock = "31636743923917171";

/** Resolves with whether it is Citus, with the short terms that have rows enough, and with some search texts. */
async function migrate(url: string): Promise<{ citus: boolean; full: string[]; texts: string[] }> {
  const sql = connect(url, 1);
  try {
    return await sql
      .begin(async (transaction) => {
        await transaction`select pg_advisory_xact_lock(${migrationLock})`;
        const [table] = await transaction<{ mine: boolean; old: boolean }[]>`
          select pg_has_role(relowner, 'usage') as mine,
            not exists (select from pg_attribute where attrelid = oid and attname = 'n') as old
          from pg_class where oid = to_regclass('pessoas')`;
        if (table?.mine === false) {
          await transaction.unsafe(
            `select ${storedColumns}, n from pessoas limit 0; select termo, id from curtos limit 0`,
          );
        } else if (table?.old) {
          await convert(transaction);
        } else {
          await transaction.unsafe(schema);
        }
        const extensions = await transaction`select from pg_extension where extname = 'citus'`;
        const full = await transaction<{ termo: string }[]>`
          select termo from curtos group by termo having count(*) >= ${enough} limit ${shortTermsKnown}`;
        const texts = await transaction<{ text: string }[]>`
          select left(busca, 1000) as text from pessoas limit 1000`;
        return {
          citus: extensions.length > 0,
          full: full.map(({ termo }) => termo),
          texts: texts.map(({ text }) => text),
        };
      })
      .catch((error) => {
        const code = error instanceof postgres.PostgresError ? error.code : "";
        if (/^(28|3D)/.test(code)) throw new RangeError(`DATABASE_URL: ${error.message}`);
        if (/^42(501|703)/.test(code)) {
          throw new RangeError(`DATABASE_URL: ${error.message}; apply schema.sql as the database's owner`);
        }
        rethrow(error);
      });
  } finally {
    await sql.end({ timeout: 1 });
  }
}

/** The table of an earlier version, which had other texts in `busca`: everybody in it is inserted anew. */
async function convert(transaction: Pick<postgres.Sql, "unsafe">): Promise<void> {
  await transaction.unsafe(`
    alter table pessoas rename to pessoas_before;
    alter index pessoas_pkey rename to pessoas_before_pkey;
    drop table if exists trechos, curtos;
    ${schema}`);
  const query = queryOn(transaction);
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
      const entered: number[] = [];
      if (part.length > 0) await insertWithTerms(query, part, short, entered);
      short.added(entered);
    }
    for (const { elements } of entries) common.stored(elements);
    const end = rows.at(-1);
    if (end === undefined) break;
    last = end.id;
  }
  await transaction.unsafe("drop table pessoas_before");
}

/** `settings` are Postgres' own, for the session. A connection ends when it was idle for `idleS` seconds; 0: never. */
function connect(url: string, max: number, settings: Record<string, string> = {}, idleS = 0) {
  const address = new URL(url);
  const host = address.searchParams.get("host");
  address.searchParams.delete("host");
  return postgres(address.href, {
    ...(host === null ? {} : { host }),
    max,
    types,
    backoff: () => 0.1, // seconds; the default backs off for up to 20 s: the service would stay down after the database is back
    connect_timeout: 2,
    idle_timeout: idleS,
    fetch_types: false,
    onnotice: () => {},
    connection: { application_name: "pessoas", DateStyle: "ISO", ...settings },
  });
}

/** A value that does not fit its column, or breaks a constraint: the row is to blame. */
function isRowError(error: unknown): boolean {
  return error instanceof postgres.PostgresError && /^2[23]/.test(error.code);
}

/**
 * An error of ours is thrown as it is; all else (connections, restarts, deadlocks, no space, timeouts, a schema
 * that is not there yet) passes, and the same request may be sent again.
 */
function rethrow(error: unknown): never {
  const bug = /^(?!42P01)(22|23|42)/;
  if (error instanceof postgres.PostgresError && bug.test(error.code)) throw error;
  throw new Unavailable("the database cannot be reached", { cause: error });
}
