// The database of `bun run server.ts`, by hand: bun run db:shell, db:backup, db:restore, db:reset.
import { EmbeddedError, removeData, runningUrl, startEmbedded } from "../embedded.ts";
import { info } from "../log.ts";
import { readSettings } from "../settings.ts";

const usage = `bun run db:shell [psql's options]   SQL in psql, on the embedded database or on DATABASE_URL
bun run db:backup FILE              writes everybody into a file, also while servers run
bun run db:restore FILE             replaces everybody by those in the file, or changes nothing; no server may run
bun run db:reset [--yes]            removes everybody from the embedded database; asks before, or needs --yes`;

const [command = "", ...args] = process.argv.slice(2);
const commands: Record<string, (given: string | undefined, dataDir: string) => Promise<number>> = {
  shell,
  backup,
  restore,
  reset,
};
try {
  const { DATABASE_URL, DATA_DIR } = readSettings(process.env);
  const action = commands[command];
  if (args.includes("--help") || !action) console.log(usage);
  else process.exitCode = await action(DATABASE_URL, DATA_DIR);
} catch (error) {
  if (!(error instanceof EmbeddedError || error instanceof RangeError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

/** Runs one of PostgreSQL's own programs on the database, in this terminal; resolves with its exit status. */
async function run(
  program: string,
  options: (url: string) => string[],
  given: string | undefined,
  dataDir: string,
): Promise<number> {
  const path = Bun.which(program);
  if (!path) {
    throw new RangeError(
      `${program} is not installed. Debian, Ubuntu: apt-get install postgresql-client; Fedora: dnf install postgresql; macOS: brew install libpq`,
    );
  }
  const url = given ?? (await runningUrl(dataDir));
  let child: Bun.Subprocess | undefined;
  const gaveUp = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!child) gaveUp.abort(new RangeError(`ended by ${signal}`));
      else if (signal !== "SIGINT") child.kill(signal); // Ctrl-C has reached the program, and is its own
    });
  }
  // Where no server runs, the database runs for as long as the program does.
  const embedded = url === undefined ? await startEmbedded(dataDir, info, gaveUp.signal) : undefined;
  child = Bun.spawn([path, ...options(url ?? (embedded?.url as string))], {
    env: given === undefined ? withoutPostgres(process.env) : process.env,
    stdio: ["inherit", "inherit", "inherit"],
  });
  const code = await child.exited;
  await embedded?.stop();
  return code;
}

/** PGSERVICE, PGOPTIONS and the like are meant for another database. */
function withoutPostgres(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !name.startsWith("PG")));
}

function fileName(): string {
  const [file, ...more] = args;
  if (!file || more.length > 0) throw new RangeError(`FILE: expected one file name\n${usage}`);
  return file;
}

function shell(given: string | undefined, dataDir: string): Promise<number> {
  return run("psql", (url) => [...args, url], given, dataDir);
}

async function backup(given: string | undefined, dataDir: string): Promise<number> {
  const file = fileName();
  return await run("pg_dump", (url) => ["--format=custom", `--file=${file}`, url], given, dataDir);
}

async function restore(given: string | undefined, dataDir: string): Promise<number> {
  const file = fileName();
  // It would go on to answer with persons in its cache who are not in the file.
  if (given === undefined && (await runningUrl(dataDir)) !== undefined) {
    throw new RangeError(`DATA_DIR: a server is running on ${dataDir}; stop it first`);
  }
  const whole = ["--clean", "--if-exists", "--no-owner", "--single-transaction"];
  return await run("pg_restore", (url) => [...whole, `--dbname=${url}`, file], given, dataDir);
}

async function reset(given: string | undefined, dataDir: string): Promise<number> {
  if (given !== undefined) {
    throw new RangeError("DATABASE_URL: db:reset removes the embedded database only; yours stays as it is");
  }
  if (!args.includes("--yes")) {
    if (!process.stdin.isTTY) throw new RangeError(`this would remove all data in ${dataDir}: add --yes`);
    if (!/^y(es)?$/i.test(prompt(`Remove all data in ${dataDir}? [y/N]`) ?? "")) return 1;
  }
  await removeData(dataDir);
  console.log(`${dataDir} is empty`);
  return 0;
}
