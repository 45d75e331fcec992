import { existsSync, readFileSync } from "node:fs";

/** The use of one container since its start, and its limits. Counters restart at 0 with the container. */
export type Usage = {
  /** CPU-seconds in user space and in the kernel. */
  userS: number;
  systemS: number;
  /** Seconds in which it was ready to run, but its quota was used up. */
  throttledS: number;
  /** Memory now: with file cache, and without inactive file cache. */
  memoryBytes: number;
  workingSetBytes: number;
  /** The peak of memoryBytes since the start; null if the kernel does not record it. */
  peakBytes: number | null;
  /** Null: no limit. */
  cpuLimit: number | null;
  memoryLimitBytes: number | null;
};

export type CgroupDirs = {
  cpu: string;
  cpuacct: string;
  memory: string;
  v2: { cpu: boolean; memory: boolean };
};

/** Folders of a process's cgroups. `proc`: the /proc to read. Throws if there are none. */
export function findCgroups(pid: number, proc = "/proc"): CgroupDirs {
  const memberships = read(`${proc}/${pid}/cgroup`).trim().split("\n").map(splitMembership);
  const mounts = read(`${proc}/self/mountinfo`).trim().split("\n").map(splitMount);
  // In v1 each controller has its own tree. A controller without its own is in v2's single tree.
  const locate = (controller: string): { dir: string; v2: boolean } => {
    const v1 = memberships.find((membership) => membership.controllers.includes(controller));
    const membership = v1 ?? memberships.find(({ controllers }) => controllers.length === 0);
    const mount = mounts.find(({ type, options }) =>
      v1 ? type === "cgroup" && options.includes(controller) : type === "cgroup2",
    );
    if (!membership || !mount) throw new Error(`process ${pid}: no cgroup for ${controller}`);
    const inside = mount.root === "/" ? membership.path : membership.path.slice(mount.root.length);
    const dir = `${mount.point}${inside === "/" ? "" : inside}`;
    if (!existsSync(dir))
      throw new Error(`process ${pid}: its ${controller} cgroup is not visible at ${dir}`);
    return { dir, v2: v1 === undefined };
  };
  const [cpu, cpuacct, memory] = [locate("cpu"), locate("cpuacct"), locate("memory")];
  return { cpu: cpu.dir, cpuacct: cpuacct.dir, memory: memory.dir, v2: { cpu: cpu.v2, memory: memory.v2 } };
}

/** Throws if the process has ended. */
export function readUsage(groups: CgroupDirs): Usage {
  return { ...readCpu(groups), ...readMemory(groups) };
}

function readCpu(groups: CgroupDirs): Pick<Usage, "userS" | "systemS" | "throttledS" | "cpuLimit"> {
  const stat = readPairs(`${groups.cpu}/cpu.stat`);
  if (groups.v2.cpu) {
    const [quota, period] = read(`${groups.cpu}/cpu.max`, "max 100000").trim().split(" ");
    return {
      userS: pair(stat, "user_usec") / 1e6,
      systemS: pair(stat, "system_usec") / 1e6,
      throttledS: (stat.get("throttled_usec") ?? 0) / 1e6,
      cpuLimit: quota === "max" ? null : Number(quota) / Number(period),
    };
  }
  const ticksPerSecond = 100; // USER_HZ, 100 on every Linux today
  const ticks = readPairs(`${groups.cpuacct}/cpuacct.stat`);
  const quota = Number(read(`${groups.cpu}/cpu.cfs_quota_us`, "-1"));
  return {
    userS: pair(ticks, "user") / ticksPerSecond,
    systemS: pair(ticks, "system") / ticksPerSecond,
    throttledS: (stat.get("throttled_time") ?? 0) / 1e9,
    cpuLimit: quota < 0 ? null : quota / Number(read(`${groups.cpu}/cpu.cfs_period_us`)),
  };
}

/** CPU-seconds to the microsecond. In v1 `readUsage` has ticks of 10 ms only. */
export function readCpuSeconds({ cpuacct, v2 }: CgroupDirs): number {
  if (v2.cpu) return pair(readPairs(`${cpuacct}/cpu.stat`), "usage_usec") / 1e6;
  return Number(read(`${cpuacct}/cpuacct.usage`)) / 1e9;
}

function readMemory({
  memory,
  v2,
}: CgroupDirs): Pick<Usage, "memoryBytes" | "workingSetBytes" | "peakBytes" | "memoryLimitBytes"> {
  const stat = readPairs(`${memory}/memory.stat`);
  const now = Number(read(`${memory}/${v2.memory ? "memory.current" : "memory.usage_in_bytes"}`));
  const inactive = stat.get(v2.memory ? "inactive_file" : "total_inactive_file") ?? 0;
  const peak = Number(read(`${memory}/${v2.memory ? "memory.peak" : "memory.max_usage_in_bytes"}`, "NaN"));
  const limit = Number(read(`${memory}/${v2.memory ? "memory.max" : "memory.limit_in_bytes"}`, "max"));
  return {
    memoryBytes: now,
    workingSetBytes: Math.max(0, now - inactive),
    peakBytes: Number.isNaN(peak) ? null : peak,
    // In v1 "no limit" is the largest number of pages.
    memoryLimitBytes: Number.isNaN(limit) || limit > 2 ** 60 ? null : limit,
  };
}

function splitMembership(line: string): { controllers: string[]; path: string } {
  const [, controllers = "", ...path] = line.split(":"); // 4:memory:/docker/<id>, or 0::/... with v2
  return { controllers: controllers === "" ? [] : controllers.split(","), path: path.join(":") };
}

function splitMount(line: string): { root: string; point: string; type: string; options: string[] } {
  const [before = "", after = ""] = line.split(" - ");
  const [, , , root = "", point = ""] = before.split(" ");
  const [type = "", , options = ""] = after.split(" ");
  const plain = (text: string) =>
    text.replaceAll(/\\([0-7]{3})/g, (_, code) => String.fromCharCode(parseInt(code, 8)));
  return { root: plain(root), point: plain(point), type, options: options.split(",") };
}

function read(path: string, absent?: string): string {
  if (absent !== undefined && !existsSync(path)) return absent;
  return readFileSync(path, "utf8");
}

function readPairs(path: string): Map<string, number> {
  const lines = read(path).trim().split("\n");
  return new Map(
    lines.map((line) => {
      const [name = "", value = ""] = line.split(" ");
      return [name, Number(value)];
    }),
  );
}

function pair(pairs: Map<string, number>, name: string): number {
  const value = pairs.get(name);
  if (value === undefined) throw new Error(`no ${name} in the cgroup's CPU accounting`);
  return value;
}
