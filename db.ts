import postgres from "postgres";
import { isLong, likePattern, searchTexts } from "./busca.ts";
import { group, Unavailable } from "./group.ts";
import * as log from "./log.ts";
import { type Pessoa, toJson } from "./pessoa.ts";
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
  /** How long a create waits for others where they come more often than that; default 0. */
  gatherMs?: number;
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
/** The columns of what is stored of a person, in the order of storedRow. */
export const storedColumns = `${columns}, busca`;
const searchLimit = 50;
// A person with a long stack can hold the term in the first text, in another one, or in both.
const searchStatement = `
  (select ${columns} from pessoas where busca like $1 limit ${searchLimit}) union all
  (select ${columns} from pessoas where id in (select id from trechos where busca like $1) and busca not like $1
   limit ${searchLimit}) limit ${searchLimit}`;
const insertLongStatement = `
  with created as (insert into pessoas (${storedColumns}) values ($1, $2, $3, $4, $5, $6) on conflict do nothing returning id),
    more as (insert into trechos (id, busca) select id, json_array_elements_text($7) from created)
  select id from created`;
// So many times as much memory as others persons with long stacks take while they wait: up to 64 KB of JSON.
const longsAre = 32;
// A search stops at its 50th hit; a bitmap would first collect all of them. And a plan for any term is the plan for
// each: making one anew takes a fifth of a search.
const searchPlans = { enable_bitmapscan: "off", plan_cache_mode: "force_generic_plan" };

// Dates and json travel as the texts they are: no Date object, no second parsing.
const asText = { serialize: (text: string) => text, parse: (text: string) => text };
const types = { date: { to: 1082, from: [1082], ...asText }, json: { to: 114, from: [114], ...asText } };

export function openDb({ url, readUrl, timeoutMs, batchSize, gatherMs = 0, queueLimit }: DbOptions): Db {
  // Pools of their own, so that neither a slow search nor a burst of reads nor a huge person can hold up a create.
  const writer = pool(1);
  const longWriter = pool(1);
  const reader = pool(1);
  let plans: Record<string, string> = searchPlans;
  const searcher = pool(2, () => plans);
  const patienceMs = Math.ceil(timeoutMs / 5); // for a replica
  const limit = { statement_timeout: String(patienceMs) };
  const copy = readUrl === undefined ? undefined : pool(1, () => limit, readUrl);
  const pools = [writer, longWriter, reader, searcher, ...(copy ? [copy] : [])];

  function pool(max: number, settings: () => Record<string, string> = () => ({}), address = url) {
    const open = () => connect(address, max, { statement_timeout: String(timeoutMs), ...settings() });
    let sql = open();
    return {
      max,
      async query<T extends object>(text: string, parameters: (string | null)[]): Promise<T[]> {
        return await sql.unsafe<T[]>(text, parameters, { prepare: true }).catch(rethrow);
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

  const inserts = group(insertBatch, { ...queued(writer, batchSize), gatherMs });
  const longInserts = group(insertLong, {
    ...queued(longWriter, 1),
    queueLimit: Math.ceil(queueLimit / longsAre),
  });
  const finds = group(findBatch, queued(reader, batchSize));
  const searches = group(
    ([pattern]: string[]) =>
      searcher.query<Row>(searchStatement, [pattern as string]).then((rows) => [rows.map(rowToJson)]),
    queued(searcher, 1),
  );
  // All who wait when a count begins asked before it began: one answer is exact for each of them.
  const counts = group(
    async (asked: undefined[]) => {
      const [row] = await searcher.query<{ n: string }>("select count(*) as n from pessoas", []);
      return asked.map(() => Number(row?.n));
    },
    { ...queued(searcher, queueLimit), lanes: 1 },
  );
  const pings = group(
    async (asked: undefined[]) => {
      await reader.query("select 1 from pessoas limit 1", []);
      return asked.map(() => undefined);
    },
    { ...queued(reader, queueLimit), lanes: 1 },
  );

  /**
   * One statement for all, committed and flushed when it returns. Rows go in the order of their ids: two
   * instances whose batches overlap in another order would deadlock.
   */
  async function insertBatch(pessoas: Pessoa[]): Promise<Outcome[]> {
    const rows = pessoas.toSorted((a, b) => (a.id < b.id ? -1 : 1));
    try {
      const returned = await writer.query<{ id: string }>(
        insertStatement(rows.length),
        rows.flatMap(storedRow),
      );
      const created = new Set(returned.map(({ id }) => id));
      // Of several with one id in this batch the first is the one that was stored.
      return pessoas.map(({ id }) => (created.delete(id) ? "created" : "taken"));
    } catch (error) {
      if (!isRowError(error)) throw error;
      if (pessoas.length === 1) return ["refused"];
      // Nothing of this batch was stored. Halving it finds the row to blame, and keeps its neighbours.
      const half = pessoas.length >> 1;
      const first = await insertBatch(pessoas.slice(0, half));
      return [...first, ...(await insertBatch(pessoas.slice(half)))];
    }
  }

  /** One person, whose search texts are many: that work must not keep those in the same batch waiting. */
  async function insertLong([pessoa]: Pessoa[]): Promise<Outcome[]> {
    const { more } = searchTexts(pessoa as Pessoa);
    try {
      const created = await longWriter.query(insertLongStatement, [
        ...storedRow(pessoa as Pessoa),
        JSON.stringify(more),
      ]);
      return [created.length === 1 ? "created" : "taken"];
    } catch (error) {
      if (!isRowError(error)) throw error;
      return ["refused"];
    }
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
      const { citus } = await migrate(url);
      if (!citus) return;
      // Which shards to ask, and with what, Citus plans for each term: a plan for any term is an error there.
      plans = {};
      searcher.reopen();
    },
    insertPessoa: (pessoa) => (isLong(pessoa) ? longInserts : inserts).submit(pessoa),
    findPessoa: finds.submit,
    async searchPessoas(term) {
      const pattern = likePattern(term);
      return pattern === undefined ? [] : await searches.submit(pattern);
    },
    countPessoas: () => counts.submit(undefined),
    ping: () => pings.submit(undefined),
    stats: () => ({
      insert: inserts.stats(),
      insertLong: longInserts.stats(),
      find: finds.stats(),
      search: searches.stats(),
    }),
    replicaStats: () => nearest?.stats(),
    async close() {
      nearest?.close();
      await Promise.all(pools.map((each) => each.close()));
    },
  };
}

function rowToJson(row: Row): string {
  return toJson(row, row.stack);
}

/** What is stored of a person: the values of storedColumns, as texts. */
export function storedRow(p: Pessoa): (string | null)[] {
  return [p.id, p.apelido, p.nome, p.nascimento, p.stack && JSON.stringify(p.stack), searchTexts(p).first];
}

const insertStatements: string[] = [];

/** `insert … values ($1, …), ($7, …), … on conflict do nothing returning id`, once for each number of rows. */
function insertStatement(rows: number): string {
  insertStatements[rows] ??= `insert into pessoas (${storedColumns}) values ${Array.from(
    { length: rows },
    (_, row) => `(${Array.from({ length: 6 }, (_, column) => `$${row * 6 + column + 1}`).join()})`,
  ).join()} on conflict do nothing returning id`;
  return insertStatements[rows];
}

// "pessoas" in ASCII: all instances take the same advisory lock.
const migrationLock = "31636743923917171";

/** Resolves with whether the database is a coordinator of Citus. */
async function migrate(url: string): Promise<{ citus: boolean }> {
  const sql = connect(url, 1);
  try {
    return await sql
      .begin(async (transaction) => {
        await transaction`select pg_advisory_xact_lock(${migrationLock})`;
        const [table] = await transaction<{ mine: boolean }[]>`
          select pg_has_role(relowner, 'usage') as mine from pg_class where oid = to_regclass('pessoas')`;
        await transaction.unsafe(
          table?.mine === false
            ? `select ${storedColumns} from pessoas limit 0; select id, busca from trechos limit 0`
            : schema,
        );
        const extensions = await transaction`select from pg_extension where extname = 'citus'`;
        return { citus: extensions.length > 0 };
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

/** `settings` are Postgres' own, for the session. */
function connect(url: string, max: number, settings: Record<string, string> = {}) {
  const address = new URL(url);
  const host = address.searchParams.get("host");
  address.searchParams.delete("host");
  return postgres(address.href, {
    ...(host === null ? {} : { host }),
    max,
    types,
    backoff: () => 0.1, // seconds; the default backs off for up to 20 s: the service would stay down after the database is back
    connect_timeout: 2,
    idle_timeout: 0,
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
