import { readFileSync } from "node:fs";
import { chown, stat } from "node:fs/promises";

const passwd = "/etc/passwd";

/**
 * PostgreSQL refuses to run as root. Root runs it as the owner of the cluster, or without one as postgres or nobody
 * (setpriv). If that user cannot enter a folder such as /root, it runs without root's rights in a user namespace
 * (unshare). Both tools belong to util-linux. Rejects without such a user.
 */
export async function postgresRunner(
  cluster: string,
  paths: string[],
  uid = process.getuid?.() ?? -1,
  accountsFile = passwd,
) {
  /** `prefix` of a command, and `uid` of the owner of its files. */
  const asMyself = { prefix: [] as string[], uid, give: async (_folder: string) => {} };
  if (uid !== 0) return asMyself;
  const owner = await stat(cluster).catch(() => undefined);
  const account = owner?.uid ? owner : accountFor(["postgres", "nobody"], accountsFile);
  const drop = ["setpriv", `--reuid=${account.uid}`, `--regid=${account.gid}`, "--clear-groups"];
  const reaches = (path: string) => Bun.spawnSync([...drop, "test", "-x", path]).success;
  if (owner?.uid !== 0 && paths.every(reaches)) {
    return {
      prefix: drop,
      uid: account.uid,
      give: (folder: string) => chown(folder, account.uid, account.gid),
    };
  }
  const numbers = [`--map-user=${account.uid}`, `--map-group=${account.gid}`];
  return { ...asMyself, prefix: ["unshare", "--user", ...numbers, "--"] };
}

/** Not userInfo(), which is $USER in Bun. */
export function nameOf(uid: number, accountsFile = passwd): string | undefined {
  return accounts(accountsFile).find((fields) => fields[2] === String(uid))?.[0];
}

function accounts(file: string): string[][] {
  try {
    const lines = readFileSync(file, "utf8").split("\n");
    return lines.map((line) => line.split(":"));
  } catch {
    return []; // not every container has the file, or lets every user read it
  }
}

function accountFor(names: string[], file: string): { uid: number; gid: number } {
  const known = accounts(file);
  const found = names.map((name) => known.find((fields) => fields[0] === name));
  const [, , uid, gid] = found.find((account) => account !== undefined) ?? [];
  if (!uid)
    throw new Error("PostgreSQL does not run as root: add a user named postgres, or start as another user");
  return { uid: Number(uid), gid: Number(gid) };
}
