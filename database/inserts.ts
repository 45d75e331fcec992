import { Unavailable, workingFactor } from "./batch.ts";
import type { Pool, Query } from "./pool.ts";
import type { Pools } from "./pools.ts";
import { hasCode, isRowError } from "./session.ts";

/** The result of an insert. `refused`: Postgres cannot store this row. */
export type Outcome = "created" | "taken" | "refused";

/** The value of `busca`, null in memory, and the fields whose short terms may need rows. */
export type Searchable = { text: string | null; fields: string[] };

/** `values` in the order of storedColumns, `bytes` of its fields. */
export type Row = { id: string; values: (string | null)[]; bytes: number; searchable: Searchable };

export const storedColumns = "id, apelido, nome, nascimento, stack, busca";
const columnCount = 6;

/** Goes into a batch like a row. It needs all that a create needs, and stores nothing. */
export const probe = Symbol("probe");
const probeStatement = `insert into pessoas (${storedColumns}) select ${storedColumns} from pessoas where false`;
export const pingStatement = "select 1 from pessoas limit 1";

type InsertOptions = {
  pools: Pools;
  search: {
    neededTerms(fields: string[]): string[];
    stored(persons: Searchable[], terms: string[]): void;
  };
  /** `$1`: short terms, a JSON object by id. */
  insertTermsStatement: string;
  isCitus(): boolean;
  timeoutMs: number;
};

type Answer = Outcome | Unavailable;

const notStoredMs = 1000;

/*
 * On Citus a crashed worker may leave an undecided transaction, for which an insert of the same id waits. This cancels
 * the insert; its rows are then stored one by one.
 */
const cancelWaitingStatement = `
  select pg_cancel_backend(pid) from pg_stat_activity
  where pid = $1::int and query_start < clock_timestamp() - $2::float8 * interval '1 ms' and exists (
    select from citus_stat_activity
    where global_pid = citus_calculate_gpid(citus_nodeid_for_gpid(citus_backend_gpid()), pg_stat_activity.pid)
      and is_worker_query and wait_event = 'transactionid')`;
const cancelShare = 1 / 2; // of timeoutMs
const lockShare = 1 / 30; // of timeoutMs
const maxUndecided = 1000;

/** Inserts rows, a batch in one commit. When Postgres refuses a row, halving the batch finds it. */
export function openInserts(options: InsertOptions) {
  const { pools, search, insertTermsStatement, isCitus, timeoutMs } = options;
  const { creates, slow, watch } = pools;
  const undecided = new Set<string>(); // ids locked by a transaction on a worker
  let nextLookAt = 0;
  let failedAt = Number.NEGATIVE_INFINITY; // last failed batch; reset by a stored one

  async function insertBatch(items: (Row | typeof probe)[]): Promise<Answer[]> {
    const rows = items.filter((item) => item !== probe);
    if (rows.length === 0) {
      await creates.query(isCitus() ? pingStatement : probeStatement, []);
      return items.map(() => "created");
    }
    try {
      const answers = (await insertRows(rows)).values();
      failedAt = Number.NEGATIVE_INFINITY;
      return items.map((item) => (item === probe ? "created" : (answers.next().value as Answer)));
    } catch (error) {
      failedAt = performance.now();
      throw error;
    }
  }

  async function insertRows(rows: Row[]): Promise<Answer[]> {
    const started = performance.now();
    try {
      return await store(creates, rows, 0);
    } catch (error) {
      const wasCancelled = hasCode(error, "57014") && performance.now() - started < workingFactor * timeoutMs;
      if (wasCancelled) return await Array.fromAsync(rows, (row) => insertAlone(creates, row));
      if (!isRowError(error)) throw error;
      if (rows.length === 1) return ["refused"];
      const half = rows.length >> 1;
      const first = await insertRows(rows.slice(0, half));
      return [...first, ...(await insertRows(rows.slice(half)))];
    }
  }

  async function insertAlone(pool: Pool, row: Row): Promise<Answer> {
    try {
      const [outcome] = await store(pool, [row], Math.ceil(timeoutMs * lockShare));
      undecided.delete(row.id);
      return outcome as Outcome;
    } catch (error) {
      if (isRowError(error)) return "refused";
      if (!(error instanceof Unavailable)) throw error;
      if (hasCode(error, "55P03")) {
        if (undecided.size >= maxUndecided) undecided.clear();
        undecided.add(row.id);
      }
      return error;
    }
  }

  /** In one commit. `lockTimeoutMs`: on Citus; 0: none. */
  async function store(pool: Pool, rows: Row[], lockTimeoutMs: number): Promise<Outcome[]> {
    const terms: Terms = new Map();
    for (const { id, searchable } of rows) {
      if (searchable.text === null || terms.has(id)) continue;
      const needed = search.neededTerms(searchable.fields);
      if (needed.length > 0) terms.set(id, needed);
    }
    const ids = await (isCitus() && (terms.size > 0 || lockTimeoutMs > 0)
      ? pool.transaction((query) => insertInParts(query, rows, terms, lockTimeoutMs))
      : insert(pool.query, rows, terms));
    const created = new Set(ids);
    // Of several rows with one id the first is stored.
    const outcomes = rows.map(({ id }) => (created.delete(id) ? "created" : "taken"));
    search.stored(
      rows.filter((_, i) => outcomes[i] === "created").map(({ searchable }) => searchable),
      ids.flatMap((id) => terms.get(id) ?? []),
    );
    return outcomes;
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

  function cancelWaiting(pid: number) {
    if (performance.now() < nextLookAt) return;
    nextLookAt = Number.POSITIVE_INFINITY; // one at a time: it asks all workers
    watch.query(cancelWaitingStatement, [String(pid), String(timeoutMs * cancelShare)]).then(
      (cancelled) => {
        // A second cancel would hit the next statement.
        nextLookAt = cancelled.length > 0 ? performance.now() + timeoutMs * cancelShare : 0;
      },
      () => {
        nextLookAt = 0; // the next tick asks again
      },
    );
  }

  return {
    insertBatch,
    insertHuge: async ([row]: Row[]) => [await insertAlone(slow, row as Row)],
    /** Whether a batch would wait for this id. */
    isUndecided: (id: string) => undecided.has(id),
    isWorking() {
      const pid = creates.pid();
      const working = pools.isWorking(pid);
      if (isCitus() && pid !== undefined) cancelWaiting(pid);
      return working;
    },
    onAbandoned() {
      failedAt = performance.now();
      creates.reopen();
    },
    /** A probe can pass where a row cannot. So a failed batch counts until a row is stored. */
    checkStored() {
      const ageMs = performance.now() - failedAt;
      if (ageMs < workingFactor * timeoutMs + notStoredMs) throw new Unavailable("creates are not stored");
    },
  };
}

/** By id. */
type Terms = Map<string, string[]>;
const toJsonText = (terms: Terms) => JSON.stringify(Object.fromEntries(terms));

/**
 * One statement: a lost client's transaction would leave its rows locked. In the order of the ids, so that overlapping
 * batches of two instances cannot deadlock. Resolves with the new ids.
 */
async function insert(query: Query, rows: Row[], terms: Terms): Promise<string[]> {
  const sorted = rows.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  const values = sorted.flatMap((row) => row.values);
  const created =
    terms.size === 0
      ? await query<{ id: string }>(insertStatement(rows.length), values)
      : await query<{ id: string }>(insertWithTermsStatement(rows.length), [...values, toJsonText(terms)]);
  return created.map(({ id }) => id);
}

/** For a number of rows. */
const insertStatement = memoized((rows) => {
  const tuples = Array.from({ length: rows }, (_, row) => {
    const parameters = Array.from({ length: columnCount }, (_, i) => `$${row * columnCount + i + 1}`);
    return `(${parameters.join()})`;
  });
  return `insert into pessoas (${storedColumns}) values ${tuples.join()} on conflict do nothing returning id`;
});
/** The same with the new persons' short terms: a JSON object by id. */
const insertWithTermsStatement = memoized(
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
