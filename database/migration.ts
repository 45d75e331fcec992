import type postgres from "postgres";
import schema from "../schema.sql" with { type: "text" };
import { Unavailable } from "./batch.ts";
import { checkRecovery, checkSchema, checkServer, type Log, refuse } from "./checks.ts";
import { type Query, queryOn, watched } from "./pool.ts";
import { connect } from "./session.ts";

type MigrationOptions = {
  /** As for psql (address.ts). */
  url: string;
  timeoutMs: number;
  isWorking(pid: number | undefined): Promise<boolean>;
  closing: AbortSignal;
  log: Log;
  /** For a database that became Citus: indexes some persons. False when none is left. */
  indexSome(query: Query): Promise<boolean>;
  /** Called when the schema is current. */
  use(query: Query, isCitus: boolean): Promise<void>;
};

type Found = {
  exists: boolean;
  /** Whether this role may change it. */
  isOwn: boolean;
  /** Of the table: its schema version. */
  comment: string | null;
  isComplete: boolean;
  /** Whether all persons are in the index. */
  isIndexed: boolean;
  isCitus: boolean;
};

const advisoryLock = "31636743923917171"; // "pessoas" in ASCII
const lockTimeoutMs = 50; // creates queue behind a change that waits for its lock
const orphanTimeoutMs = 5000;

/**
 * Creates what the schema lacks; a role that does not own the table only checks it. Rejects with RangeError, in one
 * line, or with Unavailable while the database cannot be used yet.
 */
export async function migrate(options: MigrationOptions): Promise<void> {
  const { url, timeoutMs, isWorking, closing, log, use } = options;
  closing.throwIfAborted();
  const sql = connect(url, 1, { idle_in_transaction_session_timeout: String(orphanTimeoutMs) });
  const end = () => sql.end({ timeout: 0 });
  closing.addEventListener("abort", end);
  let pid: number | undefined;
  async function work() {
    pid = (await sql<{ pid: number }[]>`select pg_backend_pid() as pid`)[0]?.pid;
    const warnings = await checkServer(sql);
    const found = await look(sql);
    if (found.exists && !hasVersion(found)) {
      // First report what another program's table lacks.
      await checkSchema(sql, found.isOwn ? ["pessoas"] : undefined);
      throw otherVersion(found);
    }
    if (!isCurrent(found) && found.isOwn) await change(sql, found, options);
    await checkSchema(sql);
    if (found.isCitus) warnings.push(...(await checkRecovery(sql, log)));
    for (const warning of warnings) log.warn(`DATABASE_URL: ${warning}`);
    await use(queryOn(sql), found.isCitus);
  }
  try {
    await watched(work(), () => isWorking(pid), timeoutMs / 2);
  } catch (error) {
    if ((error as { code?: string }).code !== "55P03") refuse(error, url);
    throw new Unavailable("the schema is changed as soon as no transaction holds its tables", {
      cause: error,
    });
  } finally {
    closing.removeEventListener("abort", end);
    await end();
  }
}

async function look(sql: Pick<postgres.Sql, "unsafe">): Promise<Found> {
  const [found] = await sql.unsafe<Found[]>(`
    select pessoas is not null as exists,
      coalesce((select pg_has_role(relowner, 'usage') from pg_class where oid = pessoas), true) as "isOwn",
      obj_description(pessoas, 'pg_class') as comment,
      to_regclass('short_terms') is not null and to_regclass('pessoas_tx') is not null
        and to_regclass('pessoas_busca') is not null
        and to_regprocedure('merge_pending_list()') is not null as "isComplete",
      coalesce((select attnotnull from pg_attribute where attrelid = pessoas and attname = 'busca'), false) as "isIndexed",
      "isCitus"
    from (select to_regclass('pessoas') as pessoas,
      exists (select from pg_extension where extname = 'citus') as "isCitus") as tables`);
  if (!found) throw new Error("no row");
  if (!found.isCitus || !found.isComplete) return found;
  const distributed = await sql.unsafe(
    "select from pg_dist_partition where logicalrelid in (to_regclass('pessoas'), to_regclass('short_terms'))",
  );
  return { ...found, isComplete: found.isIndexed && distributed.length === 2 };
}

const hasVersion = ({ comment }: Found) => schema.includes(`comment on table pessoas is '${comment}';`);
const isCurrent = (found: Found) => hasVersion(found) && found.isComplete;
const mustIndex = ({ isCitus, exists, isIndexed }: Found) => isCitus && exists && !isIndexed;

const otherVersion = ({ comment }: Found) =>
  new RangeError(
    comment !== null && /^version \d+$/.test(comment)
      ? `DATABASE_URL: the table pessoas has schema ${comment}, which this server does not know; start a newer server`
      : `DATABASE_URL: the table pessoas is not of this server: it has no schema version; name another database or ?search_path=`,
  );

/** One transaction, which gives up when others hold the tables. */
async function change(
  sql: postgres.Sql,
  before: Found,
  { timeoutMs, log, indexSome }: MigrationOptions,
): Promise<void> {
  // Short transactions: creates wait only for the last portion below.
  const indexInTurn = (transaction: postgres.TransactionSql) =>
    transaction`select pg_advisory_xact_lock(${advisoryLock})`.then(() => indexSome(queryOn(transaction)));
  while (mustIndex(before) && (await sql.begin(indexInTurn)));
  const changed = await sql.begin(async (transaction) => {
    await transaction`select set_config('lock_timeout', ${String(timeoutMs)}, true)`;
    await transaction`select pg_advisory_xact_lock(${advisoryLock})`;
    const found = await look(transaction);
    if (found.exists && !hasVersion(found)) throw otherVersion(found);
    if (isCurrent(found)) return false;
    await transaction`select set_config('lock_timeout', ${String(lockTimeoutMs)}, true)`;
    if (mustIndex(found)) {
      await transaction.unsafe("lock table pessoas in share row exclusive mode");
      while (await indexSome(queryOn(transaction)));
    }
    await transaction.unsafe(schema);
    return true;
  });
  if (before.exists && changed) log.info("the schema of DATABASE_URL was completed");
}
