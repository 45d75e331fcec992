import { type Batches, batches, Unavailable, workingFactor } from "./batch.ts";
import type { Connections } from "./connections.ts";
import type { Pool } from "./pool.ts";
import { hasCode, isRowError } from "./session.ts";

/** The result of an insert. `refused`: Postgres cannot store this row. */
export type Outcome = "created" | "taken" | "refused";

export type Row = { id: string; bytes: number };

type InsertOptions<R extends Row> = {
  connections: Connections;
  /** Stores rows in one commit. Resolves with the new ids. `lockTimeoutMs`: on Citus; 0: none. */
  store(pool: Pool, rows: R[], lockTimeoutMs: number): Promise<Set<string>>;
  /** Needs all that a create needs, and stores nothing. */
  probe(pool: Pool): Promise<unknown>;
  isCitus(): boolean;
  timeoutMs: number;
  batchSize: number;
  queueLimit: number;
  windowMs: number;
};

type Inserts<R extends Row> = {
  /** Resolves after the commit is flushed. Rejects with Unavailable. */
  insert(row: R): Promise<Outcome>;
  /** Resolves when a create could be stored. */
  probe(): Promise<void>;
  isFullOfHuge(): boolean;
  stats(): Record<"insert" | "insertHuge", ReturnType<Batches<R, Outcome>["stats"]>>;
};

type Answer = Outcome | Unavailable;

// Indexing a larger row takes milliseconds: stored alone, it delays no batch.
const hugeBytes = 2500;
// A queued huge row may take 32 times the memory, so their queue is 1/32 as long.
const hugeFactor = 32;
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

const probeItem = Symbol("probe");

/**
 * Inserts in batches, one commit each. Rows are sorted by id, so that overlapping batches of two instances cannot
 * deadlock. When Postgres refuses a row, halving the batch finds it.
 */
export function openInserts<R extends Row>(options: InsertOptions<R>): Inserts<R> {
  const { connections, store, probe, isCitus, timeoutMs, batchSize, queueLimit, windowMs } = options;
  const { creates, slow, watch } = connections;
  const undecided = new Set<string>(); // ids locked by a transaction on a worker
  let nextLookAt = 0;
  let failedAt = Number.NEGATIVE_INFINITY; // last failed batch; reset by a stored one

  const usual = batches(insertBatch, {
    ...connections.batchOptions(creates, batchSize, queueLimit),
    windowMs,
    isWorking() {
      const pid = creates.pid();
      const working = connections.isWorking(pid);
      if (isCitus() && pid !== undefined) cancelWaiting(pid);
      return working;
    },
    onAbandoned() {
      failedAt = performance.now();
      creates.reopen();
    },
  });
  const alone = batches(
    ([row]: R[]) => insertAlone(slow, row as R).then((answer) => [answer]),
    connections.batchOptions(slow, 1, Math.ceil(queueLimit / hugeFactor)),
  );

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

  async function insertBatch(items: (R | typeof probeItem)[]): Promise<Answer[]> {
    const rows = items.filter((item) => item !== probeItem);
    if (rows.length === 0) {
      await probe(creates);
      return items.map(() => "created");
    }
    try {
      const answers = (await insertRows(rows)).values();
      failedAt = Number.NEGATIVE_INFINITY;
      return items.map((item) => (item === probeItem ? "created" : (answers.next().value as Answer)));
    } catch (error) {
      failedAt = performance.now();
      throw error;
    }
  }

  async function insertRows(rows: R[]): Promise<Answer[]> {
    const started = performance.now();
    const sorted = rows.toSorted((a, b) => (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
    try {
      const created = await store(creates, sorted, 0);
      // Of several rows with one id the first is stored.
      return rows.map(({ id }) => (created.delete(id) ? "created" : "taken"));
    } catch (error) {
      const wasCancelled = hasCode(error, "57014") && performance.now() - started < workingFactor * timeoutMs;
      if (wasCancelled) return await insertEach(rows);
      if (!isRowError(error)) throw error;
      if (rows.length === 1) return ["refused"];
      const half = rows.length >> 1;
      const first = await insertRows(rows.slice(0, half));
      return [...first, ...(await insertRows(rows.slice(half)))];
    }
  }

  async function insertEach(rows: R[]): Promise<Answer[]> {
    const answers: Answer[] = [];
    for (const row of rows) answers.push(await insertAlone(creates, row));
    return answers;
  }

  async function insertAlone(pool: Pool, row: R): Promise<Answer> {
    try {
      const created = await store(pool, [row], Math.ceil(timeoutMs * lockShare));
      undecided.delete(row.id);
      return created.size === 1 ? "created" : "taken";
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

  return {
    async insert(row) {
      const isAlone = row.bytes > hugeBytes || undecided.has(row.id);
      const answer = await (isAlone ? alone : usual).submit(row);
      if (answer instanceof Unavailable) throw answer;
      return answer;
    },
    async probe() {
      await usual.submit(probeItem);
      // A probe can pass where a row cannot. So a failed batch counts until a row is stored.
      const ageMs = performance.now() - failedAt;
      if (ageMs < workingFactor * timeoutMs + notStoredMs) throw new Unavailable("creates are not stored");
    },
    isFullOfHuge: alone.isFull,
    stats: () => ({ insert: usual.stats(), insertHuge: alone.stats() }),
  };
}
