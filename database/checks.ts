import type postgres from "postgres";
import { addressOf } from "./address.ts";
import { Unavailable } from "./batch.ts";
import { connect, rethrow } from "./session.ts";
import { within } from "./within.ts";

export type Log = { info(message: string): void; warn(message: string): void };

/**
 * Rejects a pooler that keeps no session, because its statements run in other processes than the driver knows. Rejects
 * with Unavailable after `gaveUp`.
 */
export async function checkSessions(url: string, connections: number, gaveUp: AbortSignal): Promise<void> {
  gaveUp.throwIfAborted();
  const first = connect(url, 1);
  const others = Array.from({ length: connections }, () => connect(url, 1));
  const end = () => Promise.all([first, ...others].map((sql) => sql.end({ timeout: 0 })));
  gaveUp.addEventListener("abort", end);
  const pidOf = async (sql: postgres.Sql) => {
    const rows = await sql.unsafe<{ pid: number }[]>("select pg_backend_pid() as pid");
    return { pid: rows[0]?.pid, isDirect: rows[0]?.pid === rows.state.pid };
  };
  const otherPids = new Set<number | undefined>();
  const { promise: sameSeen, resolve: seeSame } = Promise.withResolvers<void>();
  try {
    const { pid, isDirect } = await pidOf(first);
    if (isDirect) return;
    await first.unsafe("begin").catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "08P01") throw error;
      throw new RangeError(`DATABASE_URL: ${error.message}; ${needsSession}`); // statement mode
    });
    await first.unsafe("rollback");
    // Each transaction occupies a process. In transaction mode the first connection's process goes to another one.
    const all = Promise.all(
      others.map(async (sql) => {
        await sql.unsafe("begin");
        const own = (await pidOf(sql)).pid;
        otherPids.add(own);
        if (own === pid) seeSame();
      }),
    );
    await within(poolerPatienceMs, Promise.race([all, sameSeen]));
    const isShared =
      otherPids.has(pid) || (otherPids.size === connections && (await pidOf(first)).pid !== pid);
    if (isShared) throw new RangeError(`DATABASE_URL: ${needsSession}`);
    if (otherPids.size < connections) {
      throw new RangeError(
        `DATABASE_URL: the pooler allows ${otherPids.size + 1} connections, and an instance needs ${connections + 1} to start; raise its limit`,
      );
    }
  } catch (error) {
    refuse(error, url);
  } finally {
    gaveUp.removeEventListener("abort", end);
    await end();
  }
}

const poolerPatienceMs = 1000;
const needsSession =
  "a pooler in transaction mode keeps no session: use its session mode, or the database itself";

/** Before anything is created. Resolves with warnings. */
export async function checkServer(sql: Pick<postgres.Sql, "unsafe">): Promise<string[]> {
  type Server = Record<"encoding" | "path" | "fsync" | "fullPageWrites", string> & {
    home: string | null;
    standby: boolean;
  };
  const [server] = await sql.unsafe<Server[]>(`
    select current_setting('server_encoding') as encoding, current_setting('search_path') as path,
      pg_is_in_recovery() as standby, current_setting('fsync') as fsync,
      current_setting('full_page_writes') as "fullPageWrites",
      coalesce((select nspname from pg_class join pg_namespace on pg_namespace.oid = relnamespace
        where pg_class.oid = to_regclass('pessoas')), current_schema()) as home`);
  if (server === undefined) return [];
  const { encoding, path, home, standby, fsync, fullPageWrites } = server;
  if (encoding !== "UTF8") {
    throw new RangeError(
      `DATABASE_URL: the database's encoding is ${encoding}; expected UTF8: create database … encoding 'UTF8' template template0`,
    );
  }
  if (home === null) {
    throw new RangeError(
      `DATABASE_URL: no schema of the search_path ${path} exists for this role; create one, or name another`,
    );
  }
  if (standby) throw new Unavailable("the database is read-only, a standby");
  // Missing tables belong beside the existing one.
  await sql.unsafe(
    `select set_config('search_path', concat_ws(', ', quote_ident($1), current_setting('search_path')), false)`,
    [home],
  );
  return [
    ...(fsync === "on" ? [] : ["fsync is off: a power cut loses persons with a 201"]),
    ...(fullPageWrites === "on" ? [] : ["full_page_writes is off: a power cut may damage the database"]),
  ];
}

/**
 * Citus hides a transaction that a worker's crash left undecided for 60 s by default. Sets 1 s where this role may.
 * Resolves with warnings.
 */
export async function checkRecovery(sql: Pick<postgres.Sql, "unsafe">, log: Log): Promise<string[]> {
  const [found] = await sql.unsafe<{ ms: number; shown: string; isOwn: boolean }[]>(`
    select setting::int as ms, current_setting(name) as shown, has_parameter_privilege(name, 'alter system')
      and has_function_privilege('pg_reload_conf()', 'execute') as "isOwn"
    from pg_settings where name = 'citus.recover_2pc_interval'`);
  if (found === undefined || (found.ms > 0 && found.ms <= 1000)) return [];
  if (!found.isOwn) {
    return [
      `citus.recover_2pc_interval is ${found.shown}: after a worker's crash persons with a 201 may be missing as long; set it to 1s`,
    ];
  }
  await sql.unsafe("alter system set citus.recover_2pc_interval = '1s'");
  await sql.unsafe("select pg_reload_conf()");
  log.info(`citus.recover_2pc_interval was ${found.shown}; now it is 1s`);
  return [];
}

const tables: Record<string, Record<string, string>> = {
  pessoas: {
    id: "uuid",
    tx: "xid8",
    nascimento: "date",
    apelido: "text",
    nome: "text",
    stack: "json",
    busca: "text",
  },
  short_terms: { term: "text", id: "uuid" },
};

/** Rejects a table of another program, and a role that may not insert. */
export async function checkSchema(
  sql: Pick<postgres.Sql, "unsafe">,
  names = Object.keys(tables),
): Promise<void> {
  for (const table of names) {
    await sql.unsafe(`select ${Object.keys(tables[table] ?? {}).join()} from ${table} limit 0`);
  }
  const columns = names.flatMap((table) =>
    Object.entries(tables[table] ?? {}).map(([column, kind]) => `('${table}', '${column}', '${kind}')`),
  );
  const wrong = await sql.unsafe<{ what: string }[]>(`
    select format('the column %s of %s is %s and not %s', name, tab, coalesce(format_type(atttypid, null), 'missing'), kind) as what
    from (values ${columns.join()}) as wanted (tab, name, kind)
      left join pg_attribute on attrelid = to_regclass(tab) and attname = name and not attisdropped
    where atttypid is distinct from kind::regtype
    union all
    select format('the role %s may not insert into %s', current_user, tab)
    from unnest('{${names}}'::text[]) as tab
    where not has_any_column_privilege(to_regclass(tab), 'insert')
    union all
    select 'the column id of pessoas is not unique'
    where not exists (select from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0]
      where indrelid = to_regclass('pessoas') and indisunique and indisvalid and indpred is null
        and indnkeyatts = 1 and attname = 'id')`);
  const [first] = wrong;
  if (first) throw new RangeError(`DATABASE_URL: ${first.what}; ${applyAsOwner}`);
}

const applyAsOwner = "apply schema.sql as the database's owner";

// SQLSTATE classes that waiting does not help. 08P01: a pooler rejects `options`.
const permanent =
  /^(0A|26|28|3D|3F|42|22023|P0001|SASL|CERT_|DEPTH_|ERR_SSL|ERR_TLS|SELF_SIGNED|SSL_|UNABLE_TO)/;

/** Throws RangeError where waiting does not help, else like rethrow. */
export function refuse(error: unknown, url = ""): never {
  const { code = "", message, severity } = error as NodeJS.ErrnoException & { severity?: string };
  const isRefusal = severity === "FATAL"; // of the connection, not of a statement
  const isOption = code === "08P01" && url !== "" && "options" in addressOf(url).options.connection;
  if (!(permanent.test(code) || isOption || (code === "XX000" && isRefusal))) {
    if (error instanceof RangeError) throw error;
    rethrow(error);
  }
  const [, hint = ""] = isRefusal && !isOption ? [] : (hints.find(([codes]) => codes.test(code)) ?? []);
  throw new RangeError(`DATABASE_URL: ${message.trim().replaceAll(/\s+/g, " ")}${hint}`);
}

const hints: [RegExp, string][] = [
  [/^(26|42P05)/, `; ${needsSession}`],
  [/^0A000/, "; pg_trgm comes with PostgreSQL's contrib package"],
  [/^08P01/, "; leave options out, or let the pooler ignore it (ignore_startup_parameters)"],
  [/^SSL_UNSUPPORTED/, "; set up SSL there, or set sslmode=prefer"],
  [
    /^(CERT_|DEPTH_|ERR_TLS|SELF_SIGNED|UNABLE_TO)/,
    "; set sslrootcert to the certificate of its signer, or sslmode=require to skip this check",
  ],
  [/^42704/, `; grant this role usage on the schema of pg_trgm, or ${applyAsOwner}`],
  [/^42/, `; ${applyAsOwner}`],
];
