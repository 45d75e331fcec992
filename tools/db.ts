// The database of `bun run server.ts`: bun run db:shell, db:backup, db:restore, db:reset.
import { randomUUID } from "node:crypto";
import { open, realpath, rename, rm, stat } from "node:fs/promises";
import { constants } from "node:os";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { addressOf, libpqEnvironment } from "../database/address.ts";
import { EmbeddedError, removeData, runningUrl, startEmbedded } from "../database/embedded.ts";
import { connect } from "../database/session.ts";
import { info } from "../process/log.ts";
import { readSettings } from "../process/settings.ts";

const usage = `bun run db:shell [psql's options]   SQL in psql, on the embedded database or on DATABASE_URL
bun run db:backup FILE              writes all data into FILE, also while servers run; a failure leaves FILE as it was
bun run db:restore FILE             replaces all data with that of FILE; a failure changes nothing; stop all servers first
bun run db:reset [--yes]            removes all data of the embedded database; asks first, except with --yes`;

const [command = "", ...args] = process.argv.slice(2);
const commands: Record<string, (given: string | undefined, dataDir: string) => Promise<number>> = {
  shell,
  backup,
  restore,
  reset,
};
try {
  const action = Object.hasOwn(commands, command) ? commands[command] : undefined;
  if ([command, ...args].includes("--help")) console.log(usage);
  else if (!action)
    throw new RangeError(`expected shell, backup, restore or reset, got "${command}"; see --help`);
  else {
    const { DATABASE_URL, DATA_DIR } = readSettings(process.env);
    process.exitCode = await action(DATABASE_URL, DATA_DIR);
  }
} catch (error) {
  const { code = "" } = error as { code?: string };
  const forPeople = error instanceof EmbeddedError || error instanceof RangeError;
  if (!forPeople && !code.startsWith("ERR_PARSE_ARGS")) throw error;
  console.error((error as Error).message);
  process.exitCode = 1;
}

/** Runs one of PostgreSQL's programs in this terminal. Resolves with its exit status, 128 and more after a signal. */
type Execute = (...options: string[]) => Promise<number>;

/** Starts the embedded database if no server runs. */
async function withDatabase(
  program: string,
  given: string | undefined,
  dataDir: string,
  work: (url: string, execute: Execute, path: string) => Promise<number>,
): Promise<number> {
  const path = Bun.which(program);
  if (!path) {
    throw new RangeError(
      `${program} is not installed. Debian, Ubuntu: apt-get install postgresql-client; Fedora: dnf install postgresql; macOS: brew install libpq`,
    );
  }
  // A signal ends the program; this process cleans up. In psql, Ctrl-C only cancels a query.
  let child: Bun.Subprocess | undefined;
  let stopped: NodeJS.Signals | undefined;
  const gaveUp = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (program !== "psql" || signal !== "SIGINT") child?.kill(signal);
      if (child) return;
      stopped = signal;
      gaveUp.abort(new RangeError(`ended by ${signal}`));
    });
  }
  const running = given ?? (await runningUrl(dataDir));
  const embedded = running === undefined ? await startEmbedded(dataDir, info, gaveUp.signal) : undefined;
  const url = running ?? (embedded?.url as string);
  // PG* variables may mean another database; readSettings has read those for this one.
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith("PG"));
  const execute: Execute = async (...options) => {
    if (stopped) return 128 + constants.signals[stopped];
    child = Bun.spawn([path, ...options], {
      env: { ...Object.fromEntries(others), ...libpqEnvironment(url) },
      stdio: ["inherit", "inherit", "inherit"],
    });
    return await child.exited;
  };
  try {
    return await work(url, execute, path);
  } finally {
    await embedded?.stop();
  }
}

/** The name of a database in a form that psql does not read as a URL. */
function quoted(database: string): string {
  return `dbname='${database.replaceAll(/['\\]/g, "\\$&")}'`;
}

function fileName(): string {
  const { positionals } = parseArgs({ args, allowPositionals: true, options: {} });
  const [file, ...more] = positionals;
  if (!file || more.length > 0) throw new RangeError("FILE: expected one file name; see --help");
  return file;
}

function shell(given: string | undefined, dataDir: string): Promise<number> {
  return withDatabase("psql", given, dataDir, (_, execute) => execute(...args));
}

async function backup(given: string | undefined, dataDir: string): Promise<number> {
  const file = fileName();
  const before = await stat(file).catch(() => undefined);
  if (before && !before.isFile()) throw new RangeError(`FILE: ${file} is not a regular file`);
  const target = before ? await realpath(file) : file; // a link stays a link
  return await withDatabase("pg_dump", given, dataDir, async (url, execute, path) => {
    await requireVersionOf(url, path);
    const draft = join(dirname(target), `.${basename(target)}.${randomUUID()}`);
    try {
      const handle = await open(draft, "wx", before?.mode ?? 0o666).catch((error: Error) => {
        throw new RangeError(`FILE: ${error.message}`);
      });
      await handle.close();
      const status = await execute("--format=custom", `--file=${draft}`);
      if (status === 0) await rename(draft, target);
      return status;
    } finally {
      await rm(draft, { force: true });
    }
  });
}

/** Rejects a pg_dump older than the server, which would fail. */
async function requireVersionOf(url: string, pgDump: string): Promise<void> {
  const server = await serverVersion(url).catch(() => 0);
  const printed = Bun.spawnSync([pgDump, "--version"]).stdout.toString();
  const own = Number(/ (\d+)/.exec(printed)?.[1] ?? 0);
  if (own < server) {
    throw new RangeError(
      `pg_dump: expected version ${server} (the database's) or newer, got ${own || "none"} (${pgDump})`,
    );
  }
}

async function serverVersion(url: string): Promise<number> {
  const sql = connect(url, 1);
  try {
    const [row] = await sql<{ version: number }[]>`
      select current_setting('server_version_num')::int / 10000 as version`;
    return row?.version ?? 0;
  } finally {
    await sql.end();
  }
}

async function restore(given: string | undefined, dataDir: string): Promise<number> {
  const file = fileName();
  // Its cache would have persons that are not in the file.
  if (given === undefined && (await runningUrl(dataDir)) !== undefined) {
    throw new RangeError(`DATA_DIR: a server is running on ${dataDir}; stop it first`);
  }
  const whole = ["--clean", "--if-exists", "--no-owner", "--single-transaction"];
  return await withDatabase("pg_restore", given, dataDir, (url, execute) =>
    execute(...whole, `--dbname=${quoted(addressOf(url).options.database)}`, file),
  );
}

async function reset(given: string | undefined, dataDir: string): Promise<number> {
  const { values } = parseArgs({ args, options: { yes: { type: "boolean" } } });
  if (given !== undefined) {
    throw new RangeError("DATABASE_URL: db:reset removes the embedded database only; yours stays as it is");
  }
  if (!values.yes) {
    if (!process.stdin.isTTY) throw new RangeError(`this would remove all data in ${dataDir}: add --yes`);
    if (!/^y(es)?$/i.test(prompt(`Remove all data in ${dataDir}? [y/N]`) ?? "")) return 1;
  }
  await removeData(dataDir, info);
  console.log(`${dataDir} is empty`);
  return 0;
}
