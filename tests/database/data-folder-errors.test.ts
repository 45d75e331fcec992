import { afterAll, describe, expect, test } from "bun:test";
import { chmod, chown, stat } from "node:fs/promises";
import { join } from "node:path";
import { blame, failureIn } from "../../database/data-folder-errors.ts";
import { removeData, runningUrl, startEmbedded } from "../../database/embedded.ts";
import { beginServer, project, server, temporaryFolder } from "../helpers/support.ts";

const quiet = () => {};

const isRoot = process.getuid?.() === 0;
// An ordinary user that root can switch to.
const uid = 64_321;
const asUser = ["setpriv", `--reuid=${uid}`, `--regid=${uid}`, "--clear-groups"];

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
  ])("%s is reported with a remedy", async (code, message) => {
    expect(await blame({ code, path: "/no-such-folder/pg18" }, "/no-such-folder", uid)).toMatch(message);
  });

  test("the error names a file of another user, and one that its owner may not read", async () => {
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

  test("errors are recognised in PostgreSQL's log", () => {
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

  test("a file as DATA_DIR, or in place of its data, is rejected", async () => {
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

  test("data of another PostgreSQL, or of another version, is rejected", async () => {
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
    "for an ordinary user after root, the error names the part that belongs to root",
    async () => {
      await using folder = await temporaryFolder();
      await chmod(folder.path, 0o755);
      const DATA_DIR = join(folder.path, "data");
      await (await startEmbedded(DATA_DIR, quiet)).stop();
      const mine = (path: string) => chown(join(DATA_DIR, path), uid, uid);
      const expectBlame = async (path: string, env = { DATA_DIR }) => {
        const { child, logged } = beginServer(env, [...asUser, ...server]);
        const message = await logged();
        expect([child.exitCode, message]).toEqual([1, expect.stringMatching(/^[^\n]+\n$/)]);
        expect(message).toStartWith(`DATA_DIR: ${path} belongs to `);
        expect(message).toEndWith("or set another DATA_DIR\n");
      };
      await expectBlame(join(DATA_DIR, "pg18"));
      Bun.spawnSync(["chown", "-R", String(uid), join(DATA_DIR, "pg18")]);
      await expectBlame(join(DATA_DIR, "postgres.log"));
      await mine("postgres.log");
      await chown(join(DATA_DIR, "pg18", "PG_VERSION"), 0, 0);
      await chmod(join(DATA_DIR, "pg18", "PG_VERSION"), 0o600);
      await expectBlame(join(DATA_DIR, "pg18", "PG_VERSION"));
      await chmod(DATA_DIR, 0o700);
      await expectBlame(DATA_DIR);
      await expectBlame(folder.path, { DATA_DIR: join(folder.path, "new") });
    },
  );
});

const small = await temporaryFolder();
const canMount = Bun.spawnSync(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", small.path]).success;
afterAll(async () => {
  if (canMount) Bun.spawnSync(["umount", small.path]);
  await small[Symbol.asyncDispose]();
});
test.if(canMount)("a full disk is reported in one line", async () => {
  await expect(startEmbedded(join(small.path, "data"), () => {})).rejects.toThrow(
    /^DATA_DIR: no space is left for \S+; [^\n]+$/,
  );
});
