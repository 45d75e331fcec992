import { readdirSync, readFileSync, readlinkSync } from "node:fs";

const listening = "0A";

/** Linux only, and only processes that this user may inspect. */
export function listenerOf(port: number, proc = "/proc"): { pid: number; name: string } | undefined {
  const hexPort = port.toString(16).toUpperCase().padStart(4, "0");
  const sockets = [`${proc}/net/tcp`, `${proc}/net/tcp6`]
    .flatMap((table) => attempt(() => readFileSync(table, "utf8").split("\n")) ?? [])
    .map((line) => line.trim().split(/\s+/))
    .filter(([, local, , state]) => state === listening && local?.endsWith(`:${hexPort}`))
    .map((fields) => `socket:[${fields[9]}]`); // the inode
  if (sockets.length === 0) return undefined;
  for (const pid of readdirSync(proc).filter((name) => /^\d+$/.test(name))) {
    const files = attempt(() => readdirSync(`${proc}/${pid}/fd`)) ?? [];
    if (
      files.some((file) => sockets.includes(attempt(() => readlinkSync(`${proc}/${pid}/fd/${file}`)) ?? ""))
    ) {
      const name = attempt(() => readFileSync(`${proc}/${pid}/comm`, "utf8").trim()) ?? "a process";
      return { pid: Number(pid), name };
    }
  }
  return undefined;
}

/** A process may have ended, or belong to another user. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
