import { stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { nameOf } from "./run-as.ts";

type Failure = { code: string; path?: string | undefined };

/**
 * Why the user `uid` cannot keep data in `folder`, and what to do, in one line. Undefined for another kind of error.
 */
export async function blame(
  { code, path }: Failure,
  folder: string,
  uid: number,
): Promise<string | undefined> {
  const place = await visibleAncestor(path ?? folder);
  switch (code) {
    case "EACCES":
    case "EPERM":
      return noPermission(place, folder, uid);
    case "ENOTDIR":
    case "EEXIST":
      return `DATA_DIR: ${place.path} is not a folder; set another DATA_DIR`;
    case "EROFS":
      return `DATA_DIR: ${place.path} is on a read-only file system; set another DATA_DIR`;
    case "ENOSPC":
    case "EDQUOT":
      return `DATA_DIR: no space is left for ${folder}; make some, or set DATA_DIR to a folder elsewhere`;
  }
  return undefined;
}

const phrases: [phrase: string, code: string][] = [
  ["Permission denied", "EACCES"],
  ["Operation not permitted", "EPERM"],
  ["has wrong ownership", "EACCES"],
  ["Not a directory", "ENOTDIR"],
  ["Read-only file system", "EROFS"],
  ["No space left on device", "ENOSPC"],
  ["Disk quota exceeded", "EDQUOT"],
];

/** The last failure in PostgreSQL's `output`. `cluster`: its working directory. */
export function failureIn(output: string, cluster: string): Failure | undefined {
  for (const line of output.split("\n").toReversed()) {
    const [, code] = phrases.find(([phrase]) => line.includes(phrase)) ?? [];
    const [, name] = /"([^"]+)"/.exec(line) ?? [];
    if (code) return { code, path: name?.startsWith("/") ? name : join(cluster, name ?? "") };
  }
  return undefined;
}

type Place = { path: string; owner: number };

function noPermission({ path, owner }: Place, folder: string, uid: number): string {
  const [ownerName, userName] = [owner, uid].map((user) => nameOf(user) ?? String(user));
  if (owner === uid)
    return `DATA_DIR: ${path} does not let its owner ${userName} in; chmod u+rwX it, or set another DATA_DIR`;
  const remedy = folder.startsWith(path)
    ? `make ${folder} and give it to ${userName}`
    : `give it to ${userName} (chown -R ${userName} ${folder})`;
  return `DATA_DIR: ${path} belongs to ${ownerName}, and PostgreSQL runs as ${userName}; ${remedy}, or set another DATA_DIR`;
}

/** The path itself, or its last visible ancestor. */
async function visibleAncestor(path: string): Promise<Place> {
  const found = await stat(path).catch(() => undefined);
  if (found) return { path, owner: found.uid };
  return path === dirname(path) ? { path, owner: 0 } : await visibleAncestor(dirname(path));
}
