import { describe, expect, test } from "bun:test";
import { EventEmitter, once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, rm } from "node:fs/promises";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEmbedded } from "../../database/embedded.ts";
import { main } from "../../process/main.ts";
import { help, readSettings } from "../../process/settings.ts";
import { start } from "../../server.ts";
import { appears, processesOn } from "../helpers/crash.ts";
import { client, newPessoa } from "../helpers/requests.ts";
import {
  beginServer,
  connect,
  newDatabase,
  project,
  query,
  serve,
  server,
  spawnServer,
  temporaryFolder,
  until,
} from "../helpers/support.ts";

const quiet = () => {};
const signals = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] as const;

describe.concurrent("a signal during the start", () => {
  test.each(signals)("%s during initdb stops it gracefully and leaves no file or process", async (signal) => {
    await using folder = await temporaryFolder();
    const started = appears(folder.path, "pg18.init-");
    const { child, logged } = beginServer({ DATA_DIR: folder.path });
    await started;
    child.kill(signal);
    expect(await logged()).toBe(`stopping: ${signal}\nstopped\n`);
    expect(await child.exited).toBe(0);
    expect(await readdir(folder.path)).toEqual([]);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("an aborted start() rejects with the reason and leaves no file or process", async () => {
    await using folder = await temporaryFolder();
    const DATA_DIR = join(folder.path, "data");
    const enough = new Error("enough");
    const abortAt = async (place: string, prefix: string) => {
      const gaveUp = new AbortController();
      const seen = appears(place, prefix).then(() => gaveUp.abort(enough));
      await expect(start(readSettings({ PORT: "0", DATA_DIR }), { gaveUp: gaveUp.signal })).rejects.toThrow(
        enough,
      );
      await seen;
      expect(processesOn(folder.path)).toEqual([]);
    };
    await mkdir(DATA_DIR);
    await abortAt(DATA_DIR, "pg18.init-");
    expect(await readdir(DATA_DIR)).toEqual([]);
    await (await startEmbedded(DATA_DIR, quiet)).stop();
    await abortAt(join(DATA_DIR, "pg18"), "postmaster.pid");
    await expect(
      start(readSettings({ PORT: "0", DATA_DIR }), { gaveUp: AbortSignal.abort(enough) }),
    ).rejects.toThrow(enough);
  });

  test("a second signal during initdb ends it at once, and the next start succeeds", async () => {
    await using folder = await temporaryFolder();
    const started = appears(folder.path, "pg18.init-");
    const { child, logged } = beginServer({ DATA_DIR: folder.path });
    await started;
    child.kill("SIGINT");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(1);
    expect(await logged()).toMatch(/(^|\n)stopping at once: SIG(INT|TERM), the second signal\n$/);
    expect(processesOn(folder.path)).toEqual([]);
    await (await startEmbedded(folder.path, quiet)).stop();
    expect((await readdir(folder.path)).toSorted()).toEqual(["pg18", "postgres.log"]);
  });

  test("stops it gracefully during PostgreSQL's recovery", async () => {
    await using folder = await temporaryFolder();
    const embedded = await startEmbedded(folder.path, quiet);
    await query(embedded.url, "create table t as select repeat('x', 1000) from generate_series(1, 50_000)");
    embedded.kill();
    const cluster = join(folder.path, "pg18");
    await rm(join(cluster, "postmaster.pid"), { force: true });
    const started = appears(cluster, "postmaster.pid");
    const { child, logged } = beginServer({ DATA_DIR: folder.path });
    await started;
    child.kill("SIGTERM");
    expect(await logged()).toBe("stopping: SIGTERM\nstopped\n");
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("stops it gracefully while it waits for another instance's migration", async () => {
    const databaseUrl = await newDatabase();
    await using other = connect(databaseUrl);
    await other.unsafe("select pg_advisory_lock(31636743923917171)"); // migrationLock in db.ts
    const { child, logged } = beginServer({ DATABASE_URL: databaseUrl });
    const waits =
      "select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
    while ((await other.unsafe(waits)).length === 0);
    child.kill("SIGTERM");
    expect(await logged()).toBe("stopping: SIGTERM\nstopped\n");
    expect(await child.exited).toBe(0);
  });
});

describe.concurrent("a running server", () => {
  test("answers the requests in flight after SIGTERM, and every 201 is stored", async () => {
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
    await using second = await serve({ DATABASE_URL: databaseUrl });
    expect(await second.count()).toBe(created);
  });

  test("stops when its terminal is closed", async () => {
    await using folder = await temporaryFolder();
    const { promise: listening, resolve } = Promise.withResolvers<void>();
    const terminal = new Bun.Terminal({
      data(_, bytes) {
        if (Buffer.from(bytes).includes("listening on")) resolve();
      },
    });
    const env = { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", DATA_DIR: folder.path };
    const child = Bun.spawn(server, { env, terminal });
    await listening;
    terminal.close();
    child.kill("SIGHUP"); // as the session of a terminal does
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("counts Ctrl-C under `bun run start` as one signal, although it arrives twice", async () => {
    await using folder = await temporaryFolder();
    const { child, listening, output } = beginServer(
      { DATA_DIR: folder.path },
      [process.execPath, "run", "--silent", "start"],
      { cwd: project, detached: true },
    );
    await listening;
    process.kill(-child.pid, "SIGINT"); // as a terminal does
    const printed = await output();
    expect(printed).toContain('"stopping: SIGINT"');
    expect(printed).toEndWith('"stopped"}\n');
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test.if(process.platform === "linux" && Bun.which("nohup") !== null)(
    "continues after a hangup under nohup",
    async () => {
      const { url, child, logged } = await spawnServer({ DATABASE_URL: await newDatabase() }, [
        "nohup",
        ...server,
      ]);
      child.kill("SIGHUP");
      expect((await client(url as string).post(newPessoa())).status).toBe(201);
      child.kill("SIGTERM");
      expect(await logged()).toEndWith("\nstopping: SIGTERM\nstopped\n");
    },
  );

  test("stops although a client never completes its request", async () => {
    const registry = await serve({}, { drainMs: 100 });
    const { hostname, port } = new URL(registry.url);
    const socket = net.connect(Number(port), hostname);
    const closed = once(socket, "close");
    socket.write("POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
    await once(socket, "data"); // 100 Continue: the server waits for the body
    await registry.stop();
    await closed;
  });

  test("on a Unix socket answers with Connection: close until nginx has closed, and removes the socket at once", async () => {
    await using folder = await temporaryFolder();
    const SOCKET = join(folder.path, "api.sock");
    const registry = await serve({ SOCKET, DATABASE_URL: await newDatabase() });
    const kept = net.connect(SOCKET);
    kept.setEncoding("latin1");
    const ask = async () => {
      kept.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
      return String(await once(kept, "data"));
    };
    expect(await ask()).not.toContain("Connection: close");
    const stopped = registry.stop();
    expect(existsSync(SOCKET)).toBe(false);
    const answer = await ask();
    expect(answer).toStartWith("HTTP/1.1 200 OK\r\n");
    expect(answer).toContain("Connection: close\r\n");
    kept.destroy();
    await stopped;
  });

  test("on a Unix socket the wait for nginx does not shorten the wait for requests in flight", async () => {
    await using folder = await temporaryFolder();
    const SOCKET = join(folder.path, "api.sock");
    const databaseUrl = await newDatabase();
    const env = { SOCKET, DATABASE_URL: databaseUrl, DB_TIMEOUT_MS: "30000" };
    const registry = await serve(env, { drainMs: 1 });
    const { post, get } = client("http://localhost", { unix: SOCKET });
    await until(async () => (await get("/readyz")).status === 200);
    await using sql = connect(databaseUrl);
    await sql`begin`;
    await sql`lock table pessoas in exclusive mode`;
    const created = post(newPessoa());
    const isWaiting = async () =>
      (
        await sql`select from pg_locks where not granted and relation = 'pessoas'::regclass
          and database = (select oid from pg_database where datname = current_database())`
      ).length > 0;
    while (!(await isWaiting()));
    const stopped = registry.stop();
    await sql`select pg_sleep(0.1)`; // longer than the drain
    await sql`rollback`;
    expect((await created).status).toBe(201);
    await stopped;
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

  test("the first signal stops it gracefully", async () => {
    const { signals, exited, process } = host({ PORT: "0", DATABASE_URL: await newDatabase() });
    await main(process, start);
    signals.emit("SIGTERM");
    expect(await exited).toBe(0);
  });

  test("a signal during the start stops it gracefully", async () => {
    const { signals, exited, process } = host({ PORT: "0", DATABASE_URL: await newDatabase() });
    const starting = main(process, start);
    signals.emit("SIGTERM");
    await starting;
    expect(await exited).toBe(0);
  });

  test("a stop that fails ends it with status 1", async () => {
    const { signals, exited, process } = host({ PORT: "0", DATABASE_URL: await newDatabase() });
    await main(process, async (...given) => {
      const running = await start(...given);
      const stop = () => running.stop().then(() => Promise.reject(new TypeError("broken")));
      return { ...running, stop };
    });
    signals.emit("SIGTERM");
    expect(await exited).toBe(1);
  });

  test("a second signal ends it at once", async () => {
    await using folder = await temporaryFolder();
    const { signals, exited, process } = host({ PORT: "0", DATA_DIR: folder.path });
    await main(process, start);
    signals.emit("SIGINT");
    signals.emit("SIGINT");
    expect(await exited).toBe(1);
    // The killed PostgreSQL recovers and releases the folder before its removal.
    await (await startEmbedded(folder.path, quiet)).stop();
  });

  test("an uncaught error is logged without its message; an uncaught exception ends it with status 1", async () => {
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
      Array(2).fill({ level: "error", msg: "a bug in the server", error: "TypeError" }),
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
