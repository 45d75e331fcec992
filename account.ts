import { chown, readFile, stat } from "node:fs/promises";

/** How to run PostgreSQL, which refuses to run as root. */
export type Runner = {
  /** What to put before a command. */
  prefix: string[];
  /** Makes a new, empty folder the command's own. */
  give(folder: string): Promise<void>;
};

const asMyself: Runner = { prefix: [], async give() {} };

/**
 * An ordinary user runs it as it is. Root runs it as whom the cluster belongs to, or where there is none yet as
 * the user postgres or nobody (setpriv). A clone below a folder that only root may enter (/root, a fresh
 * mktemp -d) is out of their reach: then as root without any of root's powers, under another number in a user
 * namespace (unshare). Both tools are of util-linux. Rejects where there is no such user.
 */
export async function postgresRunner(
  cluster: string,
  paths: string[],
  uid = process.getuid?.(),
): Promise<Runner> {
  if (uid !== 0) return asMyself;
  const owner = await stat(cluster).catch(() => undefined);
  const account = owner?.uid ? owner : await accountFor(["postgres", "nobody"]);
  const drop = ["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"];
  const reaches = (path: string) => Bun.spawnSync([...drop, "test", "-x", path]).success;
  if (owner?.uid !== 0 && paths.every(reaches)) {
    return { prefix: drop, give: (folder) => chown(folder, account.uid, account.gid) };
  }
  const numbers = [`--map-user=${account.uid}`, `--map-group=${account.gid}`];
  return { ...asMyself, prefix: ["unshare", "--user", ...numbers, "--"] };
}

async function accountFor(names: string[]): Promise<{ uid: number; gid: number }> {
  const accounts = (await readFile("/etc/passwd", "utf8")).split("\n").map((line) => line.split(":"));
  const found = names.map((name) => accounts.find((fields) => fields[0] === name));
  const [, , uid, gid] = found.find((account) => account !== undefined) ?? [];
  if (!uid) throw new Error("PostgreSQL does not run as root: add a user named postgres, or be another user");
  return { uid: Number(uid), gid: Number(gid) };
}
