import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { EventEmitter, once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EmbeddedError, startEmbedded } from "../../database/embedded.ts";
import { main } from "../../process/main.ts";
import { help } from "../../process/settings.ts";
import { start } from "../../server.ts";
import { client, type Found, newPessoa } from "../helpers/requests.ts";
import { newDatabase, serve, server, spawnServer, temporaryFolder } from "../helpers/support.ts";

const quiet = () => {};

async function postmasterPid(dataDir: string): Promise<number> {
  return Number((await readFile(join(dataDir, "pg18", "postmaster.pid"), "utf8")).split("\n")[0]);
}

async function childrenOf(pid: number): Promise<number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children.trim().split(" ").map(Number);
}

/** Sends creates one after the other until the server is gone; resolves with those that were acknowledged. */
async function createUntilGone(url: string, sent: (acknowledged: number) => void): Promise<Found[]> {
  const { post } = client(url);
  const acknowledged: Found[] = [];
  for (;;) {
    const response = await post(newPessoa()).catch(() => undefined);
    if (!response) return acknowledged;
    const answer = await response.json().catch(() => undefined);
    if (response.status === 201 && answer) acknowledged.push(answer as Found);
    sent(acknowledged.length);
  }
}

async function expectAll(url: string, persons: Found[]) {
  const { get, count } = client(url);
  for (const person of persons) expect(await (await get(`/pessoas/${person.id}`)).json()).toEqual(person);
  expect(await count()).toBeGreaterThanOrEqual(persons.length);
}

describe.concurrent("bun run server.ts", () => {
  test("starts a database by itself, keeps it between runs, and ends in order on SIGTERM", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: join(folder.path, "data") };
    const first = await spawnServer(env);
    const person = (await (await client(first.url as string).post(newPessoa())).json()) as Found;
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

  test("a second server on the same folder is refused and does the first no harm", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const first = await spawnServer(env);
    const second = await spawnServer(env);
    expect(second.url).toBeUndefined();
    expect(await second.logged()).toStartWith(`DATA_DIR: another server is running on ${folder.path}`);
    expect(second.child.exitCode).toBe(1);
    expect((await client(first.url as string).post(newPessoa())).status).toBe(201);
    first.child.kill();
    await first.output();
  });

  test("after kill -9 under load the next start takes over, and everybody who was acknowledged is there", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const first = await spawnServer(env);
    const acknowledged = await createUntilGone(first.url as string, (n) => {
      if (n === 50) first.child.kill("SIGKILL");
    });
    const second = await spawnServer(env);
    await expectAll(second.url as string, acknowledged);
    second.child.kill();
    expect(await second.logged()).toContain("that a killed server left behind");
  });

  test("after kill -9 of everything it recovers, stale pid file or not", async () => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const first = await spawnServer(env);
    const postmaster = await postmasterPid(folder.path);
    const acknowledged = await createUntilGone(first.url as string, (n) => {
      if (n !== 50) return;
      first.child.kill("SIGKILL");
      process.kill(-postmaster, "SIGKILL");
    });
    // The pid in the file may belong to anybody by now.
    const pidFile = join(folder.path, "pg18", "postmaster.pid");
    await Bun.write(pidFile, (await readFile(pidFile, "utf8")).replace(/^\d+/, String(process.pid)));
    const second = await spawnServer(env);
    await expectAll(second.url as string, acknowledged);
    second.child.kill();
    await second.output();
  });

  test("SIGTERM under load: what is in flight is answered, and what was answered is kept", async () => {
    const databaseUrl = await newDatabase();
    const first = await spawnServer({ DATABASE_URL: databaseUrl });
    const { post } = client(first.url as string);
    const inFlight = Array.from({ length: 50 }, () => post(newPessoa()));
    await inFlight[0];
    first.child.kill("SIGTERM");
    const answers = await Promise.allSettled(inFlight);
    expect(await first.logged()).toMatch(/^listening on/);
    expect(first.child.exitCode).toBe(0);
    const created = answers.filter((a) => a.status === "fulfilled" && a.value.status === 201).length;
    const second = await serve({ DATABASE_URL: databaseUrl });
    expect(await second.count()).toBe(created);
    await second.stop();
  });

  test("serves on a Unix socket, also where a killed server left one, but not where another listens", async () => {
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
    second.child.kill();
    await second.output();
    expect(existsSync(env.SOCKET)).toBe(false);
  });

  test.each([
    [{ PORT: "70000" }, 'PORT: expected a whole number from 0 to 65535, got "70000"\n'],
    [{ DATABASE_URL: "nonsense" }, /^DATABASE_URL: expected a URL[^\n]+\n$/],
    [{ DATA_DIR: "/dev/null/data" }, /^DATA_DIR: [^\n]+\n$/],
  ])("%j is refused in one line, with exit status 1", async (env, message) => {
    const { logged, child } = await spawnServer(env);
    expect(await logged()).toMatch(message);
    expect(child.exitCode).toBe(1);
  });

  test("a taken port and a refused database are told in one line", async () => {
    const databaseUrl = await newDatabase();
    const running = await serve({ DATABASE_URL: databaseUrl });
    const taken = await spawnServer({ DATABASE_URL: databaseUrl, PORT: new URL(running.url).port });
    const { port } = new URL(running.url);
    const by = process.platform === "linux" ? ` by bun (pid ${process.pid})` : "";
    expect(await taken.logged()).toBe(`PORT: port ${port} is in use${by}; stop that, or set another PORT\n`);
    expect(taken.child.exitCode).toBe(1);
    const elsewhere = new URL(databaseUrl);
    elsewhere.pathname = "/nowhere";
    const refused = await spawnServer({ DATABASE_URL: elsewhere.href });
    expect(await refused.logged()).toBe('DATABASE_URL: database "nowhere" does not exist\n');
    await running.stop();
  });
});

describe("a database that goes away", () => {
  // The server's side of the socket stays in one place while the database behind it comes and goes.
  let folder: Awaited<ReturnType<typeof temporaryFolder>>;
  let link: string;
  let dataDir: string;
  beforeAll(async () => {
    folder = await temporaryFolder();
    link = join(folder.path, "pg");
    dataDir = join(folder.path, "data");
  });
  afterAll(() => folder[Symbol.asyncDispose]());

  async function startDatabase() {
    const embedded = await startEmbedded(dataDir, quiet);
    await rm(link, { force: true });
    await symlink(new URL(embedded.url).searchParams.get("host") as string, link);
    return embedded;
  }
  const databaseUrl = () => `postgres://pessoas@localhost/postgres?host=${encodeURIComponent(link)}`;

  /** Resolves when it answers 201 again; the test's own time limit is what bounds it. */
  async function wellAgain(registry: { url: string }) {
    for (;;) {
      const { status } = await client(registry.url).post(newPessoa());
      if (status === 201) return;
      expect(status).toBe(503);
    }
  }

  async function expectUnavailable(registry: { url: string }) {
    const { get, post } = client(registry.url);
    const unknown = `/pessoas/${crypto.randomUUID()}`;
    const requests = [
      post(newPessoa()),
      get(unknown),
      get("/pessoas?t=a"),
      get("/contagem-pessoas"),
      get("/readyz"),
    ];
    for (const answer of await Promise.all(requests)) {
      expect(answer.status).toBe(503);
      expect(answer.headers.get("retry-after")).toBe("1");
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
    }
    expect((await get("/healthz")).status).toBe(200);
  }

  test("503 while it is down, from the very start on; well by itself once it is there", async () => {
    const registry = await serve({ DATABASE_URL: databaseUrl(), DB_TIMEOUT_MS: "300" }); // nothing there yet
    await expectUnavailable(registry);
    let embedded = await startDatabase();
    await wellAgain(registry);
    await embedded.stop();
    await expectUnavailable(registry);
    embedded = await startDatabase();
    await wellAgain(registry);
    expect((await client(registry.url).get("/readyz")).status).toBe(200);
    await registry.stop();
    await embedded.stop();
  });

  test("503 while it is frozen, cached persons go on; well again once it goes on", async () => {
    const embedded = await startDatabase();
    const registry = await serve({ DATABASE_URL: databaseUrl(), DB_TIMEOUT_MS: "300" });
    const person = (await (await registry.post(newPessoa())).json()) as Found;
    const postmaster = await postmasterPid(dataDir);
    const children = await childrenOf(postmaster);
    const signal = (name: "SIGSTOP" | "SIGCONT") => {
      for (const pid of [postmaster, ...children]) process.kill(pid, name);
    };
    signal("SIGSTOP");
    await expectUnavailable(registry);
    await expectUnavailable(registry); // long enough for the connections to be given up
    await expectUnavailable(registry);
    expect(await (await registry.get(`/pessoas/${person.id}`)).json()).toEqual(person);
    signal("SIGCONT");
    await wellAgain(registry);
    await registry.stop();
    await embedded.stop();
  });

  test("an embedded one that is killed is started again, as soon as what is left of it has ended", async () => {
    const lines: string[] = [];
    let held: number | undefined;
    const { promise: tried, resolve } = Promise.withResolvers<void>();
    const embedded = await startEmbedded(dataDir, (line) => {
      lines.push(line);
      if (!held || !line.includes("did not start")) return;
      process.kill(held, "SIGCONT");
      held = undefined;
      resolve();
    });
    const registry = await serve({ DATABASE_URL: embedded.url });
    const created = (await Promise.all(
      Array.from({ length: 40 }, async () => (await registry.post(newPessoa())).json()),
    )) as Found[];
    const postmaster = await postmasterPid(dataDir);
    held = (await childrenOf(postmaster))[0] as number; // not one that answers queries
    process.kill(held, "SIGSTOP");
    process.kill(postmaster, "SIGKILL");
    await tried;
    await wellAgain(registry);
    expect(lines[0]).toBe("PostgreSQL has stopped unexpectedly: starting it again");
    expect(lines[1]).toStartWith("PostgreSQL did not start in");
    await expectAll(registry.url, created);
    await registry.stop();
    await embedded.stop();
  });
});

describe.concurrent("the embedded database", () => {
  test("one folder belongs to one server; a killed one's folder to the next", async () => {
    await using folder = await temporaryFolder();
    const lines: string[] = [];
    const first = await startEmbedded(folder.path, (line) => lines.push(line));
    expect(lines).toHaveLength(1);
    await expect(startEmbedded(folder.path, quiet)).rejects.toThrow(EmbeddedError);
    first.kill();
    const second = await startEmbedded(folder.path, quiet);
    await second.stop();
  });

  test("a PostgreSQL that a killed server left running is replaced", async () => {
    await using folder = await temporaryFolder();
    const server = await spawnServer({ DATA_DIR: folder.path });
    const pidFile = await readFile(join(folder.path, "pg18", "postmaster.pid"), "utf8");
    server.child.kill("SIGKILL");
    await server.output();
    const lines: string[] = [];
    const next = await startEmbedded(folder.path, (line) => lines.push(line));
    expect(lines.join()).toContain("that a killed server left behind");
    expect(existsSync(pidFile.split("\n")[4] as string)).toBe(false); // the folder of its socket
    await next.stop();
  });

  test("an interrupted initdb is begun again, and what keeps PostgreSQL from starting is told", async () => {
    await using folder = await temporaryFolder();
    await Bun.write(join(folder.path, "pg18.init-abc", "half"), "");
    await (await startEmbedded(folder.path, quiet)).stop();
    expect(existsSync(join(folder.path, "pg18.init-abc"))).toBe(false);
    await Bun.write(join(folder.path, "pg18", "PG_VERSION"), "9.6\n");
    await expect(startEmbedded(folder.path, quiet)).rejects.toThrow(/did not start in(.|\n)+9\.6/);
  });
});

describe("the embedded database, refused", () => {
  test("a stale pid file that names a living process of another kind is no obstacle", async () => {
    await using folder = await temporaryFolder();
    await (await startEmbedded(folder.path, quiet)).stop();
    const stale = await mkdtemp(join(tmpdir(), "pessoas-"));
    await Bun.write(join(folder.path, "pg18", "postmaster.pid"), `${process.pid}\n\n\n5432\n${stale}\n`);
    await (await startEmbedded(folder.path, quiet)).stop();
    expect(existsSync(stale)).toBe(false);
  });

  test("a folder that cannot be made, and one that initdb cannot work in, are told", async () => {
    await expect(startEmbedded("/dev/null/data", quiet)).rejects.toThrow(/^DATA_DIR: /);
    await using folder = await temporaryFolder();
    const tooLong = join(folder.path, ...new Array(6).fill("x".repeat(200)));
    await expect(startEmbedded(tooLong, quiet)).rejects.toThrow(/^initdb failed in /);
  });
});

describe("start", () => {
  test("on a Unix socket: a stale one is replaced, a living one refused", async () => {
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

  test("a client that never ends its request does not keep the server from ending", async () => {
    const registry = await serve({}, { drainMs: 100 });
    const { hostname, port } = new URL(registry.url);
    const socket = net.connect(Number(port), hostname);
    const closed = once(socket, "close");
    socket.write("POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    await once(socket, "data"); // 100 Continue: the server is waiting for the body now
    await registry.stop();
    await closed;
  });
});

describe("main", () => {
  function host(env: Record<string, string>, ...args: string[]) {
    const signals = new EventEmitter();
    const exited = once(signals, "exit").then(([code]) => code as number);
    return {
      signals,
      exited,
      process: {
        env,
        argv: ["bun", "server.ts", ...args],
        on: signals.on.bind(signals),
        exit: (code: number) => void signals.emit("exit", code),
      },
    };
  }

  test("the first signal ends it in order", async () => {
    const { signals, exited, process } = host({ PORT: "0", DATABASE_URL: await newDatabase() });
    await main(process, start);
    signals.emit("SIGTERM");
    expect(await exited).toBe(0);
  });

  test("a second signal ends it at once", async () => {
    await using folder = await temporaryFolder();
    const { signals, exited, process } = host({ PORT: "0", DATA_DIR: folder.path });
    await main(process, start);
    signals.emit("SIGINT");
    signals.emit("SIGINT");
    expect(await exited).toBe(1);
    // What was killed recovers, and lets go of the folder that is about to be removed.
    await (await startEmbedded(folder.path, quiet)).stop();
  });

  test("a mistake that nobody caught is logged without what it quotes; an exception ends it with status 1", async () => {
    const { signals, exited, process } = host({ PORT: "0", DATABASE_URL: await newDatabase() });
    await main(process, start);
    const { error } = console;
    const logged: string[] = [];
    console.error = (line: string) => logged.push(line);
    signals.emit("unhandledRejection", new TypeError("secreto"));
    signals.emit("uncaughtException", new TypeError("secreto"));
    console.error = error;
    expect(await exited).toBe(1);
    expect(logged.map((line) => JSON.parse(line) as object)).toMatchObject(
      Array(2).fill({ level: "error", msg: "a mistake of the server", error: "TypeError" }),
    );
    expect(logged.join()).not.toContain("secreto");
    const ended = once(signals, "exit");
    signals.emit("SIGTERM");
    expect(await ended).toEqual([0]);
  });

  test("a wrong setting ends it with status 1", async () => {
    const { exited, process } = host({ PORT: "x" });
    await main(process, start);
    expect(await exited).toBe(1);
  });

  test("an argument ends it with status 1, and --help with 0", async () => {
    const { exited, process } = host({}, "--port=80");
    await main(process, start);
    expect(await exited).toBe(1);
    const { child, output } = await spawnServer({}, [...server, "--help"]);
    expect(await output()).toBe(`${help()}\n`);
    expect(child.exitCode).toBe(0);
  });
});
