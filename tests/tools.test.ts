import { afterAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { removeData, runningUrl, startEmbedded } from "../embedded.ts";
import { listenerOf } from "../port.ts";
import { type Found, serve, spawnServer, temporaryFolder } from "./support.ts";

const startupMs = 60_000;

async function run(script: string, env: Record<string, string>, ...args: string[]) {
  const child = Bun.spawn([process.execPath, "run", join(import.meta.dir, "..", "tools", script), ...args], {
    env: { PATH: process.env.PATH ?? "", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { out, problems, code: await child.exited };
}

test("seed: the people that were asked for, by name the same ones again", async () => {
  const registry = await serve();
  const args = ["30", "--url", registry.url, "--seed", "7", "--concurrency", "1", "--json"];
  const first = await run("seed.ts", {}, ...args);
  expect(first).toMatchObject({ code: 0, problems: "" });
  expect(JSON.parse(first.out)).toMatchObject({ created: 30, taken: 0 });
  expect(await registry.count()).toBe(30);
  const again = await run("seed.ts", {}, ...args);
  expect(JSON.parse(again.out)).toMatchObject({ created: 0, taken: 30 });
  const [person] = (await registry.search("a")) as [Found];
  expect(person.nome).toMatch(/^\p{Lu}.* \p{Lu}/u);
  await registry.stop();
});

test("seed: help, a wrong number and a registry that is not there", async () => {
  expect(await run("seed.ts", {}, "--help")).toMatchObject({
    code: 0,
    out: expect.stringContaining("--url"),
  });
  expect(await run("seed.ts", {}, "many")).toMatchObject({
    code: 1,
    problems: 'N: expected a positive whole number, got "many"\n',
  });
  expect(await run("seed.ts", {}, "--url", "http://127.0.0.1:1")).toMatchObject({
    code: 1,
    problems: "nobody answers at http://127.0.0.1:1: start the registry, or name it with --url\n",
  });
});

test.if(Bun.which("psql") !== null)(
  "db:shell: beside a running server, and without one",
  async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const { url, child, output } = await spawnServer(env);
    expect(url).toBeDefined();
    const beside = await run("db.ts", env, "shell", "-Atc", "select count(*) from pessoas");
    expect(beside).toMatchObject({ code: 0, out: "0\n" });
    child.kill();
    await output();
    const alone = await run("db.ts", env, "shell", "-Atc", "select count(*) from pessoas");
    expect(alone).toMatchObject({ code: 0, out: "0\n" });
    expect(await runningUrl(folder.path)).toBeUndefined();
  },
  startupMs,
);

test("db:shell without psql says where to get it", async () => {
  const { code, problems } = await run("db.ts", { PATH: "/nowhere" }, "shell");
  expect([code, problems]).toEqual([1, expect.stringMatching(/^psql is not installed\. [^\n]+\n$/)]);
});

test(
  "db:reset: only when it is told to, and nothing that is in use or is not its own",
  async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const cluster = join(folder.path, "pg18");
    const embedded = await startEmbedded(folder.path, () => {});
    expect(await runningUrl(folder.path)).toBe(embedded.url);
    expect(await run("db.ts", env, "reset")).toMatchObject({
      code: 1,
      problems: expect.stringContaining("add --yes"),
    });
    const used = await run("db.ts", env, "reset", "--yes");
    expect(used).toMatchObject({ code: 1, problems: expect.stringContaining("another server is running") });
    await expect(removeData(folder.path)).rejects.toThrow("another server is running");
    await embedded.stop();
    const other = await run("db.ts", { ...env, DATABASE_URL: "postgres://a@b/c" }, "reset", "--yes");
    expect(other).toMatchObject({ code: 1, problems: expect.stringMatching(/^DATABASE_URL: /) });
    expect(existsSync(cluster)).toBe(true);
    expect(await run("db.ts", env, "reset", "--yes")).toMatchObject({ code: 0 });
    expect(existsSync(cluster)).toBe(false);
    await removeData(folder.path); // nothing is left to remove
  },
  startupMs,
);

test.if(process.platform === "linux")("who listens on a port", async () => {
  const registry = await serve();
  const port = Number(new URL(registry.url).port);
  expect(listenerOf(port)).toEqual({ pid: process.pid, name: expect.any(String) });
  await expect(serve({ PORT: String(port) })).rejects.toThrow(
    new RegExp(`^PORT: port ${port} is in use by .+ \\(pid ${process.pid}\\)`),
  );
  await registry.stop();
  expect(listenerOf(port)).toBeUndefined();
});

test("who listens on a port is not told where it cannot be: another user's process, or one that is gone", async () => {
  await using folder = await temporaryFolder();
  const line = "0: 0100007F:270F 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1";
  await Bun.write(join(folder.path, "net", "tcp"), `${line}\n`);
  await mkdir(join(folder.path, "12", "fd"), { recursive: true });
  await mkdir(join(folder.path, "13"));
  expect(listenerOf(9999, folder.path)).toBeUndefined();
  await symlink("socket:[4711]", join(folder.path, "12", "fd", "3"));
  expect(listenerOf(9999, folder.path)).toEqual({ pid: 12, name: "a process" });
  expect(listenerOf(9998, folder.path)).toBeUndefined();
});

const small = await temporaryFolder();
const canMount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small.path]).success;
afterAll(async () => {
  if (canMount) Bun.spawnSync(["umount", small.path]);
  await small[Symbol.asyncDispose]();
});
test.if(canMount)("a disk without space is told in one line", async () => {
  await expect(startEmbedded(join(small.path, "data"), () => {})).rejects.toThrow(
    /^DATA_DIR: no space is left for \S+; [^\n]+$/,
  );
});
