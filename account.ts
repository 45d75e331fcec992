import { readFile, stat } from "node:fs/promises";

export type Account = { uid: number; gid: number };

/**
 * Who has to run PostgreSQL, which refuses to run as root: undefined for an ordinary user, who does it; for root
 * the owner of the cluster, or where there is none yet the user postgres or nobody. Rejects without any of them.
 */
export async function postgresAccount(
  cluster: string,
  uid = process.getuid?.(),
): Promise<Account | undefined> {
  if (uid !== 0) return undefined;
  const owner = await stat(cluster).catch(() => undefined);
  if (owner && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid };
  const accounts = (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => line.split(":"));
  const found = ["postgres", "nobody"].map((name) => accounts.find((fields) => fields[0] === name));
  const [, , id, group] = found.find((account) => account !== undefined) ?? [];
  if (!id) throw new Error("PostgreSQL does not run as root: add a user named postgres, or be another user");
  return { uid: Number(id), gid: Number(group) };
}

/**
 * What to put before a command so that root runs it as `account`; needs setpriv (util-linux). `paths` are what
 * the command must reach: a clone below a folder that only root may enter (/root, a fresh mktemp -d) is out of
 * that account's reach, and then it may read what root may, but still not write.
 */
export function runAs(account: Account, paths: string[]): string[] {
  const drop = ["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"];
  const reaches = paths.every((path) => Bun.spawnSync([...drop, "test", "-x", path]).success);
  return reaches ? drop : [...drop, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"];
}
