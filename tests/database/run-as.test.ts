import { expect, test } from "bun:test";
import { chmod, mkdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { nameOf, postgresRunner } from "../../database/run-as.ts";
import { temporaryFolder } from "../helpers/support.ts";

const root = process.getuid?.() === 0;

test("an ordinary user runs PostgreSQL directly", async () => {
  expect((await postgresRunner("/nowhere", ["/"], 1000)).prefix).toEqual([]);
});

test("root runs PostgreSQL as an unprivileged user and gives it the folders", async () => {
  await using folder = await temporaryFolder();
  const { prefix, give } = await postgresRunner("/nowhere", ["/tmp"], 0);
  if (root) {
    const { stdout } = Bun.spawnSync([...prefix, "id", "-u"]);
    await give(folder.path);
    expect((await stat(folder.path)).uid).toBe(Number(stdout.toString()));
    expect((await stat(folder.path)).uid).toBeGreaterThan(0);
    // A folder of that user is served by the same user again.
    expect((await postgresRunner(folder.path, ["/tmp"], 0)).prefix).toEqual(prefix);
  } else {
    // Only root can switch users, so the check of the folder has failed.
    expect(prefix[0]).toBe("unshare");
    await give(folder.path);
  }
});

test("a user has the name that the file of accounts gives", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "passwd");
  await Bun.write(file, "root:x:0:0:root:/root:/bin/sh\nana:x:1001:1002::/home/ana:/bin/sh\n");
  expect([nameOf(0, file), nameOf(1001, file), nameOf(7, file)]).toEqual(["root", "ana", undefined]);
});

test("without the file of accounts no user has a name, and the error asks root to add one", async () => {
  await using folder = await temporaryFolder();
  const file = join(folder.path, "passwd"); // is not there, as in some containers
  const missing = "PostgreSQL does not run as root: add a user named postgres, or start as another user";
  expect(nameOf(0, file)).toBeUndefined();
  await expect(postgresRunner("/nowhere", ["/"], 0, file)).rejects.toThrow(missing);
  await Bun.write(file, "root:x:0:0:root:/root:/bin/sh\n");
  await expect(postgresRunner("/nowhere", ["/"], 0, file)).rejects.toThrow(missing);
});

test("root runs it in a user namespace, without capabilities, if that user cannot reach the folder", async () => {
  await using folder = await temporaryFolder();
  const closed = join(folder.path, "closed");
  await mkdir(join(closed, "open"), { recursive: true });
  await chmod(closed, 0o700);
  const { prefix } = await postgresRunner("/nowhere", [join(closed, "open")], 0);
  expect(prefix.slice(0, 2)).toEqual(["unshare", "--user"]);
  if (!root) return;
  const { success, stdout } = Bun.spawnSync([
    ...prefix,
    "sh",
    "-c",
    `id -u; cd ${closed}/open && touch mine`,
  ]);
  expect([success, Number(stdout.toString()) > 0]).toEqual([true, true]);
  const powers = Bun.spawnSync([...prefix, "grep", "CapEff", "/proc/self/status"]).stdout.toString();
  expect(powers).toMatch(/^CapEff:\s+0+\n$/);
});

test("the embedded database works in a folder that only its owner can enter", async () => {
  const { startEmbedded } = await import("../../database/embedded.ts");
  await using folder = await temporaryFolder();
  const closed = join(folder.path, "closed");
  await mkdir(closed, { mode: 0o700 });
  for (let start = 0; start < 2; start++) {
    const embedded = await startEmbedded(join(closed, "data"), () => {});
    await embedded.stop();
  }
});
