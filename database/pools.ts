import { type BatchOptions, batches, Unavailable, workingFactor } from "./batch.ts";
import { openPool, type Pool, watched } from "./pool.ts";

export type PoolsOptions = {
  /** As for psql (address.ts). */
  url: string;
  /** A streaming replica, for reads by id. */
  readUrl?: string | undefined;
  timeoutMs: number;
  searches: number;
};

export type Pools = ReturnType<typeof openPools>;

const idleS = 1; // closing frees the memory of a merge
const replicaShare = 1 / 5; // of timeoutMs
// Planning takes a fifth of a search. No sequential scans, because the plan stays when a small table grows.
const plans = {
  enable_seqscan: "off",
  max_parallel_workers_per_gather: "0",
  plan_cache_mode: "force_generic_plan",
};
// A process that became idle a moment ago counts: its answer or the next statement may be on the way.
const workingStatement = `
  select pid from pg_stat_activity where pid = any ($1::int[])
    and (state = 'active' or state_change > clock_timestamp() - $2::float8 * interval '1 ms')`;
const workingShare = 1 / 4; // of timeoutMs

/** Separate pools, so neither a slow search nor a burst of reads delays a create. */
export function openPools({ url, readUrl, timeoutMs, searches }: PoolsOptions) {
  const timeout = (ms: number) => ({ statement_timeout: String(ms) });
  // A lost client's transaction must not keep its rows locked.
  const storing = { idle_in_transaction_session_timeout: String(timeoutMs) };
  let planned: Record<string, string> = plans;
  const searching = () => ({ ...timeout(timeoutMs), ...planned });
  const primary = {
    creates: openPool({
      url,
      max: 1,
      settings: () => ({ ...timeout(workingFactor * timeoutMs), ...storing }),
    }),
    /** Rare and slow statements: creates of huge persons, and counts. */
    slow: openPool({ url, max: 1, settings: () => ({ ...timeout(timeoutMs), ...storing }) }),
    merges: openPool({ url, max: 1, settings: () => timeout(0), idleS }),
    reads: openPool({ url, max: 1, settings: searching }),
    searches: openPool({ url, max: searches, settings: searching }),
    /** Asks what the server does, never behind another statement. */
    watch: openPool({ url, max: 1, settings: () => timeout(timeoutMs), idleS }),
  };
  const replicaTimeoutMs = Math.ceil(timeoutMs * replicaShare);
  const replica =
    readUrl === undefined
      ? undefined
      : openPool({ url: readUrl, max: 1, settings: () => timeout(replicaTimeoutMs) });

  const batchOptions = (pool: Pool, batchSize: number, queueLimit: number): BatchOptions => ({
    connections: pool.max,
    batchSize,
    queueLimit,
    timeoutMs,
    onAbandoned: pool.reopen,
  });
  const working = batches(
    async (pids: number[]) => {
      const rows = await primary.watch.query<{ pid: number }>(workingStatement, [
        `{${pids.join()}}`,
        String(timeoutMs * workingShare),
      ]);
      const found = new Set(rows.map(({ pid }) => pid));
      return pids.map((pid) => found.has(pid));
    },
    batchOptions(primary.watch, 16, 16),
  );

  /**
   * Whether a server process works on a statement, or did a moment ago. Rejects with Unavailable while the pool
   * connects.
   */
  async function isWorking(pid: number | undefined): Promise<boolean> {
    if (pid === undefined) throw new Unavailable("connecting");
    return await working.submit(pid);
  }

  return {
    ...primary,
    replica,
    replicaTimeoutMs,
    connections: Object.values(primary).reduce((sum, { max }) => sum + max, 0),
    batchOptions,
    /** Merges the pending list, as long as the server works on it. */
    async merge(): Promise<void> {
      const { merges } = primary;
      const merged = merges.query("select merge_pending_list()", []);
      try {
        await watched(merged, () => isWorking(merges.pid()), timeoutMs / 2);
      } catch (error) {
        merges.reopen();
        throw error;
      }
    },
    isWorking,
    /** Citus plans per term which shards to ask, and rejects a generic plan. */
    planEachSearch() {
      planned = {};
      for (const pool of [primary.reads, primary.searches]) pool.reopen();
    },
    /** Waits for statements in flight, `timeoutMs` at most. */
    async close(): Promise<void> {
      const all = [...Object.values(primary), ...(replica ? [replica] : [])];
      await Promise.all(all.map((pool) => pool.close(timeoutMs)));
    },
  };
}
