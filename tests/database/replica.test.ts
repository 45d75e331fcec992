import { afterAll, beforeAll, expect, spyOn, test } from "bun:test";
import { existsSync } from "node:fs";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type Embedded, startEmbedded } from "../../database/embedded.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { connect, type Registry, serve, temporaryFolder, until } from "../helpers/support.ts";

const folders = [await temporaryFolder(), await temporaryFolder()] as const;
const copiedCluster = join(folders[1].path, "pg18");
let primary: Embedded;
let standby: Embedded;

/** A real streaming replica, made from a backup of the running primary. */
beforeAll(async () => {
  primary = await startEmbedded(folders[0].path, () => {});
  const sql = connect(primary.url);
  await sql`select pg_backup_start('test', fast => true)`;
  Bun.spawnSync(["cp", "-a", join(folders[0].path, "pg18"), copiedCluster]); // reports files that vanished meanwhile
  const [backup] = await sql<{ labelfile: string }[]>`select labelfile from pg_backup_stop()`;
  await sql.end();
  await rm(join(copiedCluster, "postmaster.pid"));
  const { searchParams, username } = new URL(primary.url);
  const from = `primary_conninfo = 'host=${searchParams.get("host")} user=${username}'\n`;
  await Bun.write(join(copiedCluster, "backup_label"), backup?.labelfile as string);
  await Bun.write(join(copiedCluster, "postgresql.auto.conf"), from);
  await Bun.write(join(copiedCluster, "standby.signal"), "");
  const [model, ...made] = ["PG_VERSION", "backup_label", "standby.signal"].map((name) =>
    join(copiedCluster, name),
  );
  Bun.spawnSync(["chown", `--reference=${model}`, ...made]); // matters to root alone
  standby = await startEmbedded(folders[1].path, () => {});
});

afterAll(async () => {
  await standby.stop();
  await primary.stop();
  for (const folder of folders) await folder[Symbol.asyncDispose]();
});

const serveBoth = () =>
  serve({ DATABASE_URL: primary.url, DATABASE_URL_READ: standby.url, DB_TIMEOUT_MS: "5000" });

async function read(registry: Registry, { id }: { id: string }) {
  const response = await registry.get(`/pessoas/${id}`);
  return response.status === 200 ? ((await response.json()) as Found) : response.status;
}

async function counters(registry: Registry) {
  const text = await (await registry.get("/metrics")).text();
  const value = (name: string) => Number(new RegExp(`^pessoas_replica_${name} (\\d+)$`, "m").exec(text)?.[1]);
  return { up: value("up"), asked: value("asked_total"), found: value("found_total") };
}

/** Resolves when the replica has everything that is committed now. */
async function replicated() {
  await using ours = connect(primary.url);
  await using theirs = connect(standby.url);
  const [now] = await ours<{ lsn: string }[]>`select pg_current_wal_flush_lsn()::text as lsn`;
  await until(async () => {
    const [row] = await theirs<{ there: boolean }[]>`
      select pg_last_wal_replay_lsn() >= ${now?.lsn as string}::pg_lsn as there`;
    return row?.there === true;
  });
}

test("reads by id go to the replica, and an unknown id gets 404", async () => {
  await using one = await serveBoth();
  await using other = await serveBoth();
  const persons = [await one.create(), await one.create(), await one.create()];
  await replicated();
  expect(await Promise.all(persons.map((person) => read(other, person)))).toEqual(persons);
  expect(await counters(other)).toEqual({ up: 1, asked: 3, found: 3 });
  expect(await read(other, { id: crypto.randomUUID() })).toBe(404);
  expect(await counters(other)).toEqual({ up: 1, asked: 4, found: 3 });
});

test("a person that the replica does not have yet is read, found and counted on every instance", async () => {
  await using one = await serveBoth();
  await using other = await serveBoth();
  const early = await one.create();
  await replicated();
  const before = await other.count();
  await using sql = connect(standby.url);
  await sql`select pg_wal_replay_pause()`;
  await until(
    async () => (await sql`select pg_get_wal_replay_pause_state() as state`)[0]?.state === "paused",
  );
  const late = [await one.create(), await one.create()];
  const all = [early, ...late];
  expect(await sql`select from pessoas where id in ${sql(late.map(({ id }) => id))}`).toBeEmpty();
  expect(await Promise.all(all.map((person) => read(other, person)))).toEqual(all);
  expect(await counters(other)).toEqual({ up: 1, asked: 3, found: 1 });
  expect(await other.count()).toBe(before + 2);
  for (const person of late) expect(await other.search(person.apelido)).toEqual([person]);
  await sql`select pg_wal_replay_resume()`;
});

test("a frozen replica delays one read, is left out, and is used again when it answers", async () => {
  const told = spyOn(console, "error").mockImplementation(() => {});
  await using one = await serveBoth();
  await using other = await serveBoth();
  const persons = [await one.create(), await one.create(), await one.create(), await one.create()] as const;
  await replicated();
  expect(await read(other, persons[0])).toEqual(persons[0]);
  expect(await counters(other)).toEqual({ up: 1, asked: 1, found: 1 });

  const sql = connect(standby.url);
  const backends = await sql<{ pid: number }[]>`
    select pid from pg_stat_activity where application_name = 'pessoas'`;
  await sql.end();
  const postmaster = Number((await readFile(join(copiedCluster, "postmaster.pid"), "utf8")).split("\n")[0]);
  const frozen = [postmaster, ...backends.map(({ pid }) => pid)];
  for (const pid of frozen) process.kill(pid, "SIGSTOP");
  expect(await read(other, persons[1])).toEqual(persons[1]);
  expect(await counters(other)).toEqual({ up: 0, asked: 2, found: 1 });
  expect(await read(other, persons[2])).toEqual(persons[2]);
  expect(await counters(other)).toEqual({ up: 0, asked: 2, found: 1 });

  for (const pid of frozen) process.kill(pid, "SIGCONT");
  await until(async () => (await counters(other)).up === 1);
  expect(await read(other, persons[3])).toEqual(persons[3]);
  expect(await counters(other)).toEqual({ up: 1, asked: 3, found: 2 });
  expect(told.mock.calls.flat().map(String)).toEqual([
    expect.stringContaining("DATABASE_URL_READ: the replica is left out: no answer within 1000 ms"),
    expect.stringContaining("DATABASE_URL_READ: the replica answers again"),
  ]);
  told.mockRestore();
});

test("the server starts and serves without its replica", async () => {
  const told = spyOn(console, "error").mockImplementation(() => {});
  await using one = await serve({
    DATABASE_URL: primary.url,
    DATABASE_URL_READ: "postgres://pessoas@localhost/postgres?host=/nowhere",
  });
  const person = await one.create();
  await using other = await serve({
    DATABASE_URL: primary.url,
    DATABASE_URL_READ: "postgres://pessoas@127.0.0.1:1/postgres",
  });
  expect(existsSync("/nowhere")).toBe(false);
  expect(await read(other, person)).toEqual(person);
  expect(await counters(other)).toEqual({ up: 0, asked: 1, found: 0 });
  expect(await read(one, { id: crypto.randomUUID() })).toBe(404);
  expect((await other.get("/readyz")).status).toBe(200);
  expect(told.mock.calls.flat().map(String)).toEqual([
    expect.stringMatching(/DATABASE_URL_READ: the replica is left out: .*ECONNREFUSED/),
    expect.stringMatching(/DATABASE_URL_READ: the replica is left out: .*ENOENT/),
  ]);
  told.mockRestore();
});

test("with a standby as DATABASE_URL reads are answered, and the log says why creates get 503", async () => {
  const told = spyOn(console, "error").mockImplementation(() => {});
  await using both = await serveBoth();
  const person = await both.create();
  await replicated();
  await using alone = await serve({ DATABASE_URL: standby.url });
  expect(await read(alone, person)).toEqual(person);
  const response = await alone.post(newPessoa());
  expect(response.status).toBe(503);
  expect(await response.json()).toMatchObject({
    detail: "the database is read-only; send the same request again",
  });
  expect(told.mock.calls.flat().map(String)).toContainEqual(
    expect.stringContaining("the database is read-only, a standby: trying again"),
  );
  told.mockRestore();
});

test("without a replica there are no metrics of a replica", async () => {
  await using registry = await serve({ DATABASE_URL: primary.url });
  expect(await (await registry.get("/metrics")).text()).not.toContain("pessoas_replica");
});
