import { expect, test } from "bun:test";
import { join } from "node:path";
import { client, type Found, newPessoa, spawnServer, temporaryFolder } from "./support.ts";

const db = join(import.meta.dir, "..", "tools", "db.ts");

/** `bun run db:…`, with the end of what it printed. */
function run(env: Record<string, string>, ...args: string[]) {
  const { exitCode, stdout, stderr } = Bun.spawnSync([process.execPath, "run", db, ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
  });
  return { exitCode, printed: stdout.toString() + stderr.toString() };
}

// pg_dump reads servers of its own version and of older ones. The embedded one is 18.
const installed = Bun.which("pg_dump") && Bun.spawnSync(["pg_dump", "--version"]).stdout.toString().trim();
const version = Number(/(\d+)/.exec(installed || "0")?.[1]);
const reason = version >= 18 ? "" : ` (SKIPPED: needs pg_dump 18 or newer, found ${installed || "none"})`;

test.if(!reason)(
  `a backup of a running registry brings everybody back as they were, with their ids${reason}`,
  async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: join(folder.path, "data") };
    const file = join(folder.path, "pessoas.dump");
    const first = await spawnServer(env);
    const { post, get } = client(first.url as string);
    const sent = [
      { stack: null },
      { stack: [] },
      { stack: ["C#", "\\", "'", '"', "é\u{1f99c}"], nome: "O'Hara\t\n\\N \u0001 %_" },
      { nascimento: "0001-01-01" },
    ].map((change) => ({ ...newPessoa(), ...change }));
    const texts = new Map<string, string>();
    for (const person of sent) {
      const { id } = (await (await post(person)).json()) as Found;
      texts.set(id, await (await get(`/pessoas/${id}`)).text());
    }
    expect(run(env, "backup", file)).toEqual({ exitCode: 0, printed: "" });
    const later = (await (await post(newPessoa())).json()) as Found; // is not in it
    expect(run(env, "restore", file)).toMatchObject({
      exitCode: 1,
      printed: expect.stringMatching(/a server is running/),
    });
    first.child.kill();
    await first.output();

    // What is no backup changes nothing; what is one replaces all, also on a cluster of its own.
    await Bun.write(join(folder.path, "broken.dump"), (await Bun.file(file).bytes()).slice(0, -300));
    expect(run(env, "restore", join(folder.path, "broken.dump")).exitCode).toBe(1);
    for (const data of [env.DATA_DIR, join(folder.path, "other")]) {
      const second = await spawnServer({ DATA_DIR: data });
      const before = client(second.url as string);
      expect(await before.count()).toBe(data === env.DATA_DIR ? texts.size + 1 : 0);
      second.child.kill();
      await second.output();
      expect(run({ DATA_DIR: data }, "restore", file).exitCode).toBe(0);
      const third = await spawnServer({ DATA_DIR: data });
      const after = client(third.url as string);
      expect(await after.count()).toBe(texts.size);
      expect((await after.get(`/pessoas/${later.id}`)).status).toBe(404);
      for (const [id, text] of texts) expect(await (await after.get(`/pessoas/${id}`)).text()).toBe(text);
      expect(await after.search("o'hara\t\n\\n")).toHaveLength(1);
      for (const person of sent) expect((await after.post(person)).status).toBe(422);
      expect((await after.post(newPessoa())).status).toBe(201);
      third.child.kill();
      await third.output();
    }
  },
  60_000,
);

test("db:backup and db:restore want one file, and the programs that they need", () => {
  for (const command of ["backup", "restore"]) {
    expect(run({}, command)).toMatchObject({
      exitCode: 1,
      printed: expect.stringMatching(/^FILE: expected one file name\n/),
    });
    expect(run({}, command, "a", "b").exitCode).toBe(1);
    const url = "postgres://x@127.0.0.1:1/x";
    expect(run({ PATH: "/nowhere", DATABASE_URL: url }, command, "x")).toMatchObject({
      exitCode: 1,
      printed: expect.stringMatching(/^pg_\w+ is not installed\. /),
    });
  }
});
