import { expect, test } from "bun:test";
import { chmod, mkdir, readdir, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { type Cluster, startCluster } from "../helpers/cluster.ts";
import { expectExact, samplePersons } from "../helpers/random-persons.ts";
import { client, newPessoa } from "../helpers/requests.ts";
import { project, type Registry, serve, spawnServer, temporaryFolder } from "../helpers/support.ts";

const db = join(project, "tools", "db.ts");

/** Runs `bun run db:…` to its end. */
function run(env: Record<string, string>, ...args: string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, "run", db, ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { exitCode, printed: stdout.toString() + stderr.toString() };
}

// pg_dump reads servers up to its own version, and the embedded one has 18.
const installed = Bun.which("pg_dump") && Bun.spawnSync(["pg_dump", "--version"]).stdout.toString().trim();
const version = Number(/(\d+)/.exec(installed || "0")?.[1]);
const reason = version >= 18 ? "" : ` (SKIPPED: needs pg_dump 18 or newer, found ${installed || "none"})`;

test.if(!reason)(
  `a backup of a running registry restores every person with its id, byte for byte${reason}`,
  async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: join(folder.path, "data") };
    const file = join(folder.path, "pessoas.dump");
    const first = await spawnServer(env);
    const { create, get } = client(first.url as string);
    const sent = [
      { stack: null },
      { stack: [] },
      { stack: ["C#", "\\", "'", '"', "é\u{1f99c}"], nome: "O'Hara\t\n\\N \u0001 %_" },
      { nascimento: "0001-01-01" },
    ].map((change) => ({ ...newPessoa(), ...change }));
    const texts = new Map<string, string>();
    for (const person of sent) {
      const { id } = await create(person);
      texts.set(id, await (await get(`/pessoas/${id}`)).text());
    }
    expect(run(env, "backup", file)).toEqual({ exitCode: 0, printed: "" });
    const later = await create(); // after the backup
    expect(run(env, "restore", file)).toMatchObject({
      exitCode: 1,
      printed: expect.stringMatching(/a server is running/),
    });
    await first.stop();

    // A broken backup changes nothing; a good one replaces all data, also in another folder.
    await Bun.write(join(folder.path, "broken.dump"), (await Bun.file(file).bytes()).slice(0, -300));
    expect(run(env, "restore", join(folder.path, "broken.dump")).exitCode).toBe(1);
    for (const data of [env.DATA_DIR, join(folder.path, "other")]) {
      const second = await spawnServer({ DATA_DIR: data });
      const before = client(second.url as string);
      expect(await before.count()).toBe(data === env.DATA_DIR ? texts.size + 1 : 0);
      await second.stop();
      expect(run({ DATA_DIR: data }, "restore", file).exitCode).toBe(0);
      const third = await spawnServer({ DATA_DIR: data });
      const after = client(third.url as string);
      expect(await after.count()).toBe(texts.size);
      expect((await after.get(`/pessoas/${later.id}`)).status).toBe(404);
      for (const [id, text] of texts) expect(await (await after.get(`/pessoas/${id}`)).text()).toBe(text);
      expect(await after.search("o'hara\t\n\\n")).toHaveLength(1);
      for (const person of sent) expect((await after.post(person)).status).toBe(422);
      expect((await after.post(newPessoa())).status).toBe(201);
      await third.stop();
    }
  },
  60_000,
);

/** Runs `count` empty transactions. */
const pass = (cluster: Cluster, count: number) =>
  cluster.sql(`do $$ begin for i in 1..${count} loop perform pg_current_xact_id(); commit; end loop; end $$`);

test.if(!reason)(
  `two instances on a restored backup find the same as the model, with transaction ids far behind and far ahead${reason}`,
  async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "pessoas.dump");
    await using source = await startCluster();
    await using target = await startCluster();
    const two = ({ url }: Cluster) => {
      const start = () => serve({ DATABASE_URL: url }, { maxInMemory: 150 });
      return Promise.all([start(), start()]);
    };
    const stop = (instances: Registry[]) => Promise.all(instances.map((registry) => registry.stop()));
    await pass(source, 500);
    const backedUp = samplePersons(100);
    const before = await two(source);
    await createAll(before, backedUp);
    await stop(before);
    expect(run({ DATABASE_URL: source.url }, "backup", file)).toEqual({ exitCode: 0, printed: "" });

    for (const isAhead of [false, true]) {
      if (isAhead) await pass(target, 100_000);
      expect(run({ DATABASE_URL: target.url }, "restore", file).exitCode).toBe(0);
      const [restored] = await target.sql(
        "select bool_and(tx < pg_snapshot_xmin(pg_current_snapshot())) as before, bool_or(tx < pg_snapshot_xmax(pg_current_snapshot())) as some from pessoas",
      );
      expect([restored?.before, restored?.some]).toEqual([isAhead, isAhead]);
      const both = await two(target);
      const persons = [...backedUp];
      await expectExact(both, persons, 100);
      // In the first round the target reuses the restored transaction ids.
      for (let round = 0; round < 4; round++) {
        const more = samplePersons(25);
        await createAll(both, more);
        persons.push(...more);
        await pass(target, 150);
        await expectExact(both, persons, 30);
      }
      await stop(both);
    }
  },
  120_000,
);

/** Creates these persons, through the instances in turn. */
async function createAll(instances: Registry[], persons: object[]): Promise<void> {
  const left = persons.entries();
  const creating = async () => {
    for (const [i, person] of left)
      expect((await instances[i % instances.length]?.post(person))?.status).toBe(201);
  };
  await Promise.all(Array.from({ length: 4 }, creating));
}

/** A folder with an earlier backup, and a fake pg_dump of that version that runs `script`; $file is its output. */
async function earlierBackup(script: string, version = 99) {
  const folder = await temporaryFolder();
  const [bin, backups] = [join(folder.path, "bin"), join(folder.path, "backups")];
  await mkdir(backups);
  const file = join(backups, "pessoas.dump");
  await Bun.write(file, "earlier");
  const pgDump = join(bin, "pg_dump");
  const lines = [
    "#!/bin/sh",
    `if [ "$1" = --version ]; then echo "pg_dump (PostgreSQL) ${version}.1 (made up)"; exit; fi`,
    'file=$(echo "$2" | sed s/--file=//)',
    script,
  ];
  await Bun.write(pgDump, `${lines.join("\n")}\n`);
  await chmod(pgDump, 0o755);
  return {
    file,
    backups,
    env: { PATH: `${bin}:${process.env.PATH}`, DATABASE_URL: process.env.DATABASE_URL as string },
    left: async () => [await readdir(backups), await Bun.file(file).text()],
    [Symbol.asyncDispose]: folder[Symbol.asyncDispose],
  };
}
const unchanged = [["pessoas.dump"], "earlier"];

test("a failed db:backup leaves the earlier backup unchanged, and no other file", async () => {
  await using failing = await earlierBackup('echo half >"$file"; echo "pg_dump: error: made up" >&2; exit 3');
  const { env, file, left } = failing;
  expect(run(env, "backup", file)).toEqual({ exitCode: 3, printed: "pg_dump: error: made up\n" });
  expect(await left()).toEqual(unchanged);
  const away = { ...env, DATABASE_URL: "postgres://x@127.0.0.1:1/x" };
  expect(run(away, "backup", file).exitCode).toBe(3);
  expect(await left()).toEqual(unchanged);
});

test("db:backup reports a pg_dump older than the database before it writes anything", async () => {
  await using old = await earlierBackup('echo half >"$file"', 9);
  expect(run(old.env, "backup", old.file)).toEqual({
    exitCode: 1,
    printed: expect.stringMatching(
      /^pg_dump: expected version \d\d \(the database.s\) or newer, got 9 \(\S+\)\n$/,
    ),
  });
  expect(await old.left()).toEqual(unchanged);
});

test.each(["SIGINT", "SIGTERM", "SIGHUP"] as const)(
  "db:backup stopped by %s leaves the earlier backup unchanged",
  async (signal) => {
    await using slow = await earlierBackup('echo half >"$file"; echo started; exec sleep 600');
    const child = Bun.spawn([process.execPath, "run", db, "backup", slow.file], {
      env: slow.env,
      stdout: "pipe",
    });
    const reader = child.stdout.getReader();
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("started\n");
    child.kill(signal);
    expect(await child.exited).toBeGreaterThan(128);
    expect(await slow.left()).toEqual(unchanged);
  },
);

test("a successful db:backup replaces the file and keeps its mode, also through a link", async () => {
  await using good = await earlierBackup('echo whole >"$file"');
  await chmod(good.file, 0o600);
  const link = join(good.backups, "..", "link");
  await symlink(good.file, link);
  expect(run(good.env, "backup", link)).toEqual({ exitCode: 0, printed: "" });
  expect(await good.left()).toEqual([["pessoas.dump"], "whole\n"]);
  expect((await stat(good.file)).mode & 0o777).toBe(0o600);
  expect(run(good.env, "backup", join(good.backups, "new")).exitCode).toBe(0);
  expect((await readdir(good.backups)).sort()).toEqual(["new", "pessoas.dump"]);
});

test.each([["/dev/null"], ["/tmp"], ["/nowhere/pessoas.dump"], ["--verbose"]])(
  "db:backup rejects the file name %s",
  async (file) => {
    await using good = await earlierBackup('echo whole >"$file"');
    expect(run(good.env, "backup", file)).toEqual({
      exitCode: 1,
      printed: expect.stringMatching(/^(FILE: [^\n]+|Unknown option '--verbose'.*)\n$/),
    });
  },
);

test("db:backup and db:restore report a missing file name and missing programs", () => {
  for (const command of ["backup", "restore"]) {
    expect(run({}, command)).toMatchObject({
      exitCode: 1,
      printed: "FILE: expected one file name; see --help\n",
    });
    expect(run({}, command, "a", "b").exitCode).toBe(1);
    const url = "postgres://x@127.0.0.1:1/x";
    expect(run({ PATH: "/nowhere", DATABASE_URL: url }, command, "x")).toMatchObject({
      exitCode: 1,
      printed: expect.stringMatching(/^pg_\w+ is not installed\. /),
    });
  }
});
