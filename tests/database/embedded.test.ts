import { describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, readlink, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { EmbeddedError, startEmbedded } from "../../database/embedded.ts";
import { linkLibraries } from "../../database/shared-libraries.ts";
import { createUntilGone, expectAll, postmasterPid, processesOn, runCode } from "../helpers/crash.ts";
import { client, newPessoa } from "../helpers/requests.ts";
import { project, spawnServer, temporaryFolder } from "../helpers/support.ts";

const quiet = () => {};

describe("the embedded database", () => {
  test("a folder in use is rejected, and a killed server's folder is taken over", async () => {
    await using folder = await temporaryFolder();
    const lines: string[] = [];
    const first = await startEmbedded(folder.path, (line) => lines.push(line));
    expect(lines).toHaveLength(1);
    await expect(startEmbedded(folder.path, quiet)).rejects.toThrow(EmbeddedError);
    first.kill();
    const second = await startEmbedded(folder.path, quiet);
    await second.stop();
  });

  test("the PostgreSQL of a killed server is stopped and replaced", async () => {
    await using folder = await temporaryFolder();
    const server = await spawnServer({ DATA_DIR: folder.path });
    const pidFile = await readFile(join(folder.path, "pg18", "postmaster.pid"), "utf8");
    server.child.kill("SIGKILL");
    await server.output();
    const lines: string[] = [];
    const next = await startEmbedded(folder.path, (line) => lines.push(line));
    expect(lines.join()).toContain("that a killed server left behind");
    expect(existsSync(pidFile.split("\n")[4] as string)).toBe(false); // its socket's folder
    await next.stop();
  });

  test("an interrupted initdb is repeated", async () => {
    await using folder = await temporaryFolder();
    await Bun.write(join(folder.path, "pg18.init-abc", "half"), "");
    await (await startEmbedded(folder.path, quiet)).stop();
    expect(existsSync(join(folder.path, "pg18.init-abc"))).toBe(false);
  });

  test("a stale pid file with the id of another program does not prevent a start", async () => {
    await using folder = await temporaryFolder();
    await (await startEmbedded(folder.path, quiet)).stop();
    const stale = await mkdtemp(join(tmpdir(), "pessoas-"));
    await Bun.write(join(folder.path, "pg18", "postmaster.pid"), `${process.pid}\n\n\n5432\n${stale}\n`);
    await (await startEmbedded(folder.path, quiet)).stop();
    expect(existsSync(stale)).toBe(false);
  });

  test("the error names DATA_DIR if the folder cannot be made, and initdb if it fails", async () => {
    await expect(startEmbedded("/dev/null/data", quiet)).rejects.toThrow(/^DATA_DIR: /);
    await using folder = await temporaryFolder();
    const tooLong = join(folder.path, ...new Array(6).fill("x".repeat(200)));
    await expect(startEmbedded(tooLong, quiet)).rejects.toThrow(/^initdb failed in /);
  });

  test.each([
    ["the server", false],
    ["the server and PostgreSQL, despite a stale pid file,", true],
  ])("after kill -9 of %s under load the next one has every acknowledged person", async (_, both) => {
    await using folder = await temporaryFolder();
    const env = { DATA_DIR: folder.path };
    const first = await spawnServer(env);
    const postmaster = await postmasterPid(folder.path);
    const acknowledged = await createUntilGone(first.url as string, (n) => {
      if (n !== 50) return;
      first.child.kill("SIGKILL");
      if (both) process.kill(-postmaster, "SIGKILL");
    });
    if (both) {
      // The pid in the file may belong to another process now.
      const pidFile = join(folder.path, "pg18", "postmaster.pid");
      await Bun.write(pidFile, (await readFile(pidFile, "utf8")).replace(/^\d+/, String(process.pid)));
    }
    const second = await spawnServer(env);
    await expectAll(second.url as string, acknowledged);
    second.child.kill();
    const log = await second.logged();
    if (!both) expect(log).toContain("that a killed server left behind");
  });

  test.each(["process.exit(3)", "setTimeout(() => { throw new Error() })"])(
    "PostgreSQL ends with a process that runs %s",
    async (end) => {
      await using folder = await temporaryFolder();
      const [dataDir, TMPDIR] = [join(folder.path, "data"), join(folder.path, "tmp")];
      await mkdir(TMPDIR);
      await chmod(folder.path, 0o755);
      await chmod(TMPDIR, 0o1777);
      const text = `
        import { startEmbedded } from "./database/embedded.ts";
        await startEmbedded(${JSON.stringify(dataDir)}, () => {});
        ${end}`;
      expect((await runCode(text, { TMPDIR })).code).toBeGreaterThan(0);
      expect(processesOn(folder.path)).toEqual([]);
      expect(await readdir(TMPDIR)).toEqual([]);
    },
  );

  test("stop() during the restart of a killed PostgreSQL leaves no process", async () => {
    await using folder = await temporaryFolder();
    const { promise: died, resolve } = Promise.withResolvers<void>();
    const embedded = await startEmbedded(folder.path, (line) => {
      if (line.includes("unexpectedly")) resolve();
    });
    process.kill(await postmasterPid(folder.path), "SIGKILL");
    await died;
    await embedded.stop();
    expect(processesOn(folder.path)).toEqual([]);
  });
});

describe("variables for psql or postgres.js", () => {
  // Each would select another database, or change its settings.
  const variables = `
    PGPORT=5433 PGHOST=nowhere.invalid PGHOSTADDR=192.0.2.1 PGUSER=x PGUSERNAME=x PGPASSWORD=x PGDATABASE=x
    PGSSLMODE=verify-full PGSSL=require PGSSLROOTCERT=system PGSSLNEGOTIATION=direct PGSERVICE=x PGAPPNAME=x
    PGTZ=Asia/Tokyo TZ=Asia/Tokyo PGCLIENTENCODING=LATIN1 LANG=de_DE.UTF-8 LC_ALL=x PGDATESTYLE=SQL
    PGTARGETSESSIONATTRS=standby PGTARGET_SESSION_ATTRS=standby PGDATA=/nowhere PGMAX=0 PGMAX_CONNECTIONS=0
    PGBACKOFF=20 PGIDLE_TIMEOUT=1 PGFETCH_TYPES=true PGCONNECT_TIMEOUT=1 PGDEBUG=1 PGPREPARE=false
    PGKEEP_ALIVE=1 PGPUBLICATIONS=x`;
  const pairs = variables.trim().split(/\s+/);
  const env: Record<string, string> = {
    ...Object.fromEntries(pairs.map((pair) => pair.split("="))),
    PGOPTIONS: "-c search_path=x",
  };

  test("do not affect the embedded database", async () => {
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

test("missing and dangling links of the libraries are made, also by eight callers at once", async () => {
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
  await Bun.write(lib, ""); // not writable, like another user's folder
  await expect(linkLibraries(folder.path)).rejects.toThrow(
    /^PostgreSQL's libraries are not linked[^\n]+ owner of /,
  );
});
