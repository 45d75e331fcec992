import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { appendFile, mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { listenerOf } from "../../process/port-owner.ts";
import { expectAll, processesOn, runCode } from "../helpers/crash.ts";
import { client, newPessoa } from "../helpers/requests.ts";
import {
  beginServer,
  newDatabase,
  project,
  query,
  serve,
  spawnServer,
  temporaryFolder,
} from "../helpers/support.ts";

describe.concurrent("bun run server.ts", () => {
  test("starts a database, keeps its data between runs, and stops gracefully on SIGTERM", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: join(folder.path, "data") };
    const first = await spawnServer(env);
    const person = await client(first.url as string).create();
    first.child.kill("SIGTERM");
    expect(await first.logged()).toMatch(/^PostgreSQL 18 initialised in \S+ \(\d+ ms\)\nlistening on http/);
    expect(first.child.exitCode).toBe(0);
    expect(existsSync(join(env.DATA_DIR, "pg18", "postmaster.pid"))).toBe(false);

    const second = await spawnServer(env);
    await expectAll(second.url as string, [person]);
    second.child.kill("SIGINT");
    expect(await second.logged()).toMatch(/^listening on http/);
    expect(second.child.exitCode).toBe(0);
  });

  test("rejects a folder that another server uses, and that server continues", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    await using first = await spawnServer(env);
    const second = await spawnServer(env);
    expect(second.url).toBeUndefined();
    expect(await second.logged()).toStartWith(`DATA_DIR: another server is running on ${folder.path}`);
    expect(second.child.exitCode).toBe(1);
    expect((await client(first.url as string).post(newPessoa())).status).toBe(201);
  });

  test("serves on a Unix socket, replaces that of a killed server, and rejects one in use", async () => {
    await using folder = await temporaryFolder();
    const env = { DATABASE_URL: await newDatabase(), SOCKET: join(folder.path, "api.sock") };
    const first = await spawnServer(env);
    expect(first.url).toBe(env.SOCKET);
    const refused = await spawnServer(env);
    expect(await refused.logged()).toBe(`SOCKET: another server is listening on ${env.SOCKET}\n`);
    first.child.kill("SIGKILL");
    await first.output();
    const second = await spawnServer(env);
    const { post } = client("http://localhost", { unix: env.SOCKET });
    expect((await post(newPessoa())).status).toBe(201);
    await second.stop();
    expect(existsSync(env.SOCKET)).toBe(false);
  });

  test.each([
    [{ PORT: "70000" }, 'PORT: expected a whole number from 0 to 65535, got "70000"\n'],
    [{ DATABASE_URL: "nonsense" }, /^DATABASE_URL: expected a URL[^\n]+\n$/],
    [{ DATA_DIR: "/dev/null/data" }, /^DATA_DIR: [^\n]+\n$/],
  ])("rejects %j in one line, with exit status 1", async (env, message) => {
    const { logged, child } = await spawnServer(env);
    expect(await logged()).toMatch(message);
    expect(child.exitCode).toBe(1);
  });

  test("reports a port in use and an unknown database in one line", async () => {
    const databaseUrl = await newDatabase();
    await using running = await serve({ DATABASE_URL: databaseUrl });
    const taken = await spawnServer({ DATABASE_URL: databaseUrl, PORT: new URL(running.url).port });
    const { port } = new URL(running.url);
    const by = process.platform === "linux" ? ` by bun (pid ${process.pid})` : "";
    expect(await taken.logged()).toBe(`PORT: port ${port} is in use${by}; stop that, or set another PORT\n`);
    expect(taken.child.exitCode).toBe(1);
    const elsewhere = new URL(databaseUrl);
    elsewhere.pathname = "/nowhere";
    const refused = await spawnServer({ DATABASE_URL: elsewhere.href });
    expect(await refused.logged()).toBe('DATABASE_URL: database "nowhere" does not exist\n');
  });
});

describe("a start that rejects", () => {
  test("leaves no connection at the database", async () => {
    const databaseUrl = await newDatabase();
    await using running = await serve();
    const { port } = new URL(running.url);
    await expect(serve({ DATABASE_URL: databaseUrl, PORT: port })).rejects.toThrow(/^PORT: /);
    const name = new URL(databaseUrl).pathname.slice(1);
    const others = `select pid from pg_stat_activity where datname = '${name}' and pid <> pg_backend_pid()`;
    while ((await query(databaseUrl, others)).length > 0);
  });

  test("does not keep its process alive", async () => {
    await using folder = await temporaryFolder();
    await using running = await serve();
    const { port } = new URL(running.url);
    const nowhere = new URL(running.databaseUrl);
    nowhere.pathname = "/nowhere";
    const SOCKET = join(folder.path, "no", "folder", "api.sock");
    const rejected = [
      { DATABASE_URL: running.databaseUrl, PORT: port },
      { DATABASE_URL: nowhere.href },
      { DATABASE_URL: "postgres://x@127.0.0.1:1/x", PORT: port },
      { DATABASE_URL: running.databaseUrl, SOCKET },
      { DATA_DIR: join(folder.path, "data"), PORT: port },
    ];
    const { stdout, stderr, code } = await runCode(`
        import { start } from "./server.ts";
        import { readSettings } from "./process/settings.ts";
        for (const env of ${JSON.stringify(rejected)}) {
          await start(readSettings({ PORT: "0", ...env })).catch((error) => console.log("rejected: " + error.message));
        }`);
    const reasons = stdout.match(/^rejected: [A-Z_]+: /gm);
    expect(reasons as string[]).toEqual(
      ["PORT", "DATABASE_URL", "PORT", "SOCKET", "PORT"].map((name) => `rejected: ${name}: `),
    );
    expect([code, stderr]).toEqual([0, expect.not.stringContaining("mistake")]);
    expect(processesOn(folder.path)).toEqual([]);
  });
});

describe("an unusable address is rejected", () => {
  test.each([
    ["nowhere.invalid", "cannot be resolved"],
    ["127.0.0.1:80", "cannot be resolved"],
    ["256.1.1.1", "cannot be resolved"],
    ["203.0.113.1", "is not an address of this machine"],
    ["2001:db8::1", "is not an address of this machine"],
  ])("HOST=%s: %s", async (HOST, why) => {
    await expect(serve({ HOST })).rejects.toThrow(
      `HOST: "${HOST}" ${why}; set HOST to 127.0.0.1, or to 0.0.0.0 for all addresses`,
    );
  });

  test("SOCKET in a missing folder, and SOCKET that is a folder", async () => {
    await using folder = await temporaryFolder();
    await expect(serve({ SOCKET: join(folder.path, "no", "api.sock") })).rejects.toThrow(
      /^SOCKET: .*ENOENT.+; set a/,
    );
    await expect(serve({ SOCKET: folder.path })).rejects.toThrow(/^SOCKET: [^\n]+; set a/);
  });
});

test("a stale SOCKET is replaced, and one in use is rejected", async () => {
  await using folder = await temporaryFolder();
  const SOCKET = join(folder.path, "api.sock");
  const env = { SOCKET, DATABASE_URL: await newDatabase() };
  await Bun.write(SOCKET, "");
  const registry = await serve(env);
  const { get } = client("http://localhost", { unix: SOCKET });
  expect((await get("/readyz")).status).toBe(200);
  await expect(serve(env)).rejects.toThrow(`SOCKET: another server is listening on ${SOCKET}`);
  await registry.stop();
});

test("a reload by bun --watch continues with the same data and logs no error", async () => {
  await using folder = await temporaryFolder();
  const entry = join(folder.path, "entry.ts");
  await Bun.write(
    entry,
    `import { main } from "${project}/process/main.ts";\nimport { start } from "${project}/server.ts";\nawait main(process, start);\n`,
  );
  const command = [process.execPath, "--watch", "--no-clear-screen", entry];
  const { child, listening, writes, logged } = beginServer({ DATA_DIR: join(folder.path, "data") }, command);
  const { id } = await client((await listening) as string).create();
  await appendFile(entry, "// changed\n");
  const reloaded = await writes(/listening on [\s\S]+listening on ([^\s"]+)/);
  expect((await client(reloaded as string).get(`/pessoas/${id}`)).status).toBe(200);
  child.kill("SIGTERM");
  const messages = (await logged()).trim().split("\n");
  expect(messages.map((message) => message.replace(/http.+/, ""))).toEqual([
    expect.stringMatching(/^PostgreSQL 18 initialised/),
    "listening on ",
    "listening on ",
    "stopping: SIGTERM",
    "stopped",
  ]);
  expect(processesOn(folder.path)).toEqual([]);
});

test.if(process.platform === "linux")("the error of a port in use names the listening process", async () => {
  const registry = await serve();
  const port = Number(new URL(registry.url).port);
  expect(listenerOf(port)).toEqual({ pid: process.pid, name: expect.any(String) });
  await expect(serve({ PORT: String(port) })).rejects.toThrow(
    new RegExp(`^PORT: port ${port} is in use by .+ \\(pid ${process.pid}\\)`),
  );
  await registry.stop();
  expect(listenerOf(port)).toBeUndefined();
});

test("the listening process is unknown if it belongs to another user or has ended", async () => {
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
