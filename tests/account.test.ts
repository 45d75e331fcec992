import { expect, test } from "bun:test";
import { chmod, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { postgresAccount, runAs } from "../account.ts";
import { temporaryFolder } from "./support.ts";

const me = { uid: process.getuid?.() as number, gid: process.getgid?.() as number };

test("an ordinary user runs PostgreSQL", async () => {
  expect(await postgresAccount("/nowhere", 1000)).toBeUndefined();
});

test("root runs it as the owner of the cluster, else as an account without rights", async () => {
  await using folder = await temporaryFolder();
  const unprivileged = await postgresAccount("/nowhere", 0);
  expect(unprivileged?.uid).toBeGreaterThan(0);
  expect(await postgresAccount(folder.path, 0)).toEqual(me.uid === 0 ? unprivileged : me);
});

test("a path that only its owner may enter is within reach of a command that runs as another user", async () => {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "only", "mine");
  await mkdir(path, { recursive: true });
  await chmod(join(folder.path, "only"), 0o700);
  const account = (await postgresAccount("/nowhere", 0)) as { uid: number; gid: number };
  const command = runAs(account, [path]);
  expect(command.slice(0, 3)).toEqual(["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`]);
  const { success, stdout } = Bun.spawnSync([
    ...command,
    "sh",
    "-c",
    `id -u && ls ${path} && ! touch ${path}/x`,
  ]);
  // Only root may become another user.
  expect([success, stdout.toString()]).toEqual(me.uid === 0 ? [true, `${account.uid}\n`] : [false, ""]);
});
