import { chown, readFile, stat } from "node:fs/promises";

/** How to run PostgreSQL, which refuses to run as root. */
export type Runner = {
  /** What to put before a command. */
  prefix: string[];
  /** The user that the command's files belong to. */
  uid: number;
  /** Makes a new, empty folder the command's own. */
  give(folder: string): Promise<void>;
};

/**
 * An ordinary user runs it as it is. Root runs it as whom the cluster belongs to, or where there is none yet as
 * the user postgres or nobody (setpriv). A clone below a folder that only root may enter (/root, a fresh
 * mktemp -d) is out of their reach: then as root without any of root's powers, under another number in a user
 * namespace (unshare). Both tools are of util-linux. Rejects where there is no such user.
 */
export async function postgresRunner(
  cluster: string,
  paths: string[],
  uid = process.getuid?.() ?? -1,
): Promise<Runner> {
  const asMyself = { prefix: [], uid, async give() {} };
  if (uid !== 0) return asMyself;
  const owner = await stat(cluster).catch(() => undefined);
  const account = owner?.uid ? owner : await accountFor(["postgres", "nobody"]);
  const drop = ["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"];
  const reaches = (path: string) => Bun.spawnSync([...drop, "test", "-x", path]).success;
  if (owner?.uid !== 0 && paths.every(reaches)) {
    return { prefix: drop, uid: account.uid, give: (folder) => chown(folder, account.uid, account.gid) };
  }
  const numbers = [`--map-user=${account.uid}`, `--map-group=${account.gid}`];
  return { ...asMyself, prefix: ["unshare", "--user", ...numbers, "--"] };
}

/** What a user is called; its number where it has no name. */
export async function nameOf(uid: number): Promise<string> {
  const [name] = (await accounts()).find((fields) => fields[2] === String(uid)) ?? [];
  return name ?? String(uid);
}

async function accounts(): Promise<string[][]> {
  const text = await readFile("/etc/passwd", "utf8").catch(() => "");
  return text.split("\n").map((line) => line.split(":"));
}

async function accountFor(names: string[]): Promise<{ uid: number; gid: number }> {
  const known = await accounts();
  const found = names.map((name) => known.find((fields) => fields[0] === name));
  const [, , uid, gid] = found.find((account) => account !== undefined) ?? [];
  if (!uid) throw new Error("PostgreSQL does not run as root: add a user named postgres, or be another user");
  return { uid: Number(uid), gid: Number(gid) };
}
