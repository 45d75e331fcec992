import { appendFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

/** What one container has used since it started, and may use. Counters restart at 0 with the container. */
export type Usage = {
  /** CPU-seconds in user space and in the kernel. */
  userS: number;
  systemS: number;
  /** Seconds in which it had work but had used up its share of CPU. */
  throttledS: number;
  /** Memory now, file cache included; and what of it could not be given back at once. */
  memoryBytes: number;
  workingSetBytes: number;
  /** The highest memory since the start, file cache included; null where the kernel does not say. */
  peakBytes: number | null;
  /** Limits; null where there is none. */
  cpuLimit: number | null;
  memoryLimitBytes: number | null;
};

/** What a registry tells at /metrics, by name with labels; see parseMetrics. */
export type Metrics = Record<string, number>;

/** One line of the file: every service of the project at one moment (ms since 1970). */
export type Sample = {
  atMs: number;
  services: Record<string, Usage>;
  /** By service, of those whose /metrics could be read. */
  metrics?: Record<string, Metrics>;
};

const usage = `Usage: usage.ts --project NAME --out FILE.jsonl [--interval-ms N]

Samples CPU and memory of every running container of a docker compose project from the cgroups (v1 and v2)
of this machine: one line of JSON at the start, one per interval, one at the end, until SIGTERM or Ctrl-C.
A container that listens on a Unix socket in a volume (environment SOCKET) is asked for /metrics too, at most
every five seconds and at the end, where the volume can be read from outside.

  --project NAME     the compose project, as "docker compose ls" names it
  --out FILE.jsonl   file to write
  --interval-ms N    default 1000
  -h, --help         this text`;

const metricsTimeoutMs = 500;
const minMetricsIntervalMs = 4990; // five seconds, less what a timer is early

/** Seconds and bytes of the cgroups `pid` is in. Throws when they cannot be read (the process has ended). */
export function readUsage(groups: CgroupDirs): Usage {
  return { ...readCpu(groups), ...readMemory(groups) };
}

export type CgroupDirs = {
  cpu: string;
  cpuacct: string;
  memory: string;
  v2: { cpu: boolean; memory: boolean };
};

/** Folders of the cgroups of a process. `proc` is the /proc to read. Throws when there are none. */
export function findCgroups(pid: number, proc = "/proc"): CgroupDirs {
  const memberships = read(`${proc}/${pid}/cgroup`).trim().split("\n").map(splitMembership);
  const mounts = read(`${proc}/self/mountinfo`).trim().split("\n").map(splitMount);
  // With v1 each controller has a tree of its own; what no v1 tree has is in the single tree of v2.
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
  const ticksPerSecond = 100; // USER_HZ: 100 on every Linux of today
  const ticks = readPairs(`${groups.cpuacct}/cpuacct.stat`);
  const quota = Number(read(`${groups.cpu}/cpu.cfs_quota_us`, "-1"));
  return {
    userS: pair(ticks, "user") / ticksPerSecond,
    systemS: pair(ticks, "system") / ticksPerSecond,
    throttledS: (stat.get("throttled_time") ?? 0) / 1e9,
    cpuLimit: quota < 0 ? null : quota / Number(read(`${groups.cpu}/cpu.cfs_period_us`)),
  };
}

/** CPU-seconds of the cgroup to the microsecond; those of `readUsage`, which are parted, come in ticks of 10 ms in v1. */
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
    // v1 says "no limit" with the largest number of pages.
    memoryLimitBytes: Number.isNaN(limit) || limit > 2 ** 60 ? null : limit,
  };
}

type Service = {
  groups: CgroupDirs;
  /** The Unix socket it listens on, as a path of this machine. */
  socket: string | undefined;
};

/** The project's running containers, by service (with the container's number from 2 on). */
export function findServices(project: string): Map<string, Service> {
  const ids = docker("ps", "--quiet", "--filter", `label=com.docker.compose.project=${project}`).split("\n");
  if (ids[0] === "") throw new Error(`no container of the compose project "${project}" is running`);
  const label = (name: string) => `{{index .Config.Labels "com.docker.compose.${name}"}}`;
  const format = [
    label("service"),
    label("container-number"),
    "{{.State.Pid}}",
    "{{json .Config.Env}}",
    "{{json .Mounts}}",
  ];
  const containers = docker("inspect", "--format", format.join("\t"), ...ids).split("\n");
  const services = containers.map((line): [string, Service] => {
    const [service = "", number = "1", pid = "", env = "", mounts = ""] = line.split("\t");
    return [
      number === "1" ? service : `${service}-${number}`,
      { groups: findCgroups(Number(pid)), socket: findSocket(JSON.parse(env), JSON.parse(mounts)) },
    ];
  });
  return new Map(services.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * Where a container's SOCKET is on this machine; undefined when it has none, or not in a mount. `env` and `mounts`
 * as "docker inspect" gives them.
 */
export function findSocket(
  env: readonly string[] | null,
  mounts: readonly { Source: string; Destination: string }[] | null,
): string | undefined {
  const socket = env?.find((entry) => entry.startsWith("SOCKET="))?.slice("SOCKET=".length);
  const mount = mounts?.find(({ Destination }) => socket?.startsWith(`${Destination}/`));
  return socket && mount ? join(mount.Source, socket.slice(mount.Destination.length)) : undefined;
}

/** Of the values in Prometheus' text format those of the cache, the group commit and the process. */
export function parseMetrics(text: string): Metrics {
  const lines = text.matchAll(
    /^((?:pessoas_cache|pessoas_group|process_cpu|process_resident)_[a-z_]+(?:\{[^}]*\})?) (\S+)$/gm,
  );
  return Object.fromEntries([...lines].map(([, name = "", value]) => [name, Number(value)]));
}

/** What is told at `url`/metrics, over the Unix socket if given; undefined when nothing usable is. */
export async function readMetrics(url: string, unix?: string): Promise<Metrics | undefined> {
  try {
    const init = { signal: AbortSignal.timeout(metricsTimeoutMs), ...(unix ? { unix } : {}) };
    const response = await fetch(new URL("/metrics", url), init);
    const metrics = parseMetrics(await response.text());
    return response.ok && Object.keys(metrics).length > 0 ? metrics : undefined;
  } catch {
    return undefined;
  }
}

async function sample(services: Map<string, Service>, withMetrics: boolean): Promise<Sample> {
  const used: Record<string, Usage> = {};
  const metrics: Record<string, Metrics> = {};
  const atMs = Date.now();
  for (const [name, { groups }] of services) {
    try {
      used[name] = readUsage(groups);
    } catch {
      // Stopped or restarting: left out of this line, and there again once its folders are.
    }
  }
  if (withMetrics) {
    const sockets = [...services].flatMap(([name, { socket }]) => (socket ? [{ name, socket }] : []));
    await Promise.all(
      sockets.map(async ({ name, socket }) => {
        const told = await readMetrics("http://localhost", socket);
        if (told) metrics[name] = told;
      }),
    );
  }
  return { atMs, services: used, ...(Object.keys(metrics).length > 0 ? { metrics } : {}) };
}

function docker(...args: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["docker", ...args]);
  if (exitCode !== 0) throw new Error(`docker ${args[0]}: ${stderr.toString().trim()}`);
  return stdout.toString().trim();
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

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      project: { type: "string" },
      out: { type: "string" },
      "interval-ms": { type: "string", default: "1000" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.log(usage);
    return;
  }
  const { project, out } = values;
  if (!project || !out) throw new RangeError("--project and --out are needed; see --help");
  const intervalMs = Number(values["interval-ms"]);
  if (!(intervalMs >= 100))
    throw new RangeError(`--interval-ms: expected at least 100, got "${values["interval-ms"]}"`);

  const services = findServices(project);
  let askedMs = 0;
  const write = async (last = false) => {
    // It costs the registry a little: not more often than the pictures need.
    const withMetrics = last || Date.now() - askedMs >= minMetricsIntervalMs;
    if (withMetrics) askedMs = Date.now();
    appendFileSync(out, `${JSON.stringify(await sample(services, withMetrics))}\n`);
  };
  const stopped = Promise.withResolvers<"stopped">();
  process.on("SIGTERM", () => stopped.resolve("stopped"));
  process.on("SIGINT", () => stopped.resolve("stopped"));
  writeFileSync(out, "");
  do await write();
  while ((await Promise.race([stopped.promise, Bun.sleep(intervalMs)])) !== "stopped");
  await write(true);
  process.exit(0);
}

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error(`usage.ts: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}
