import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readArguments, runScript } from "../../tools/arguments.ts";
import { type CgroupDirs, findCgroups, readUsage, type Usage } from "./cgroups.ts";
import { round } from "./statistics.ts";

/** Values from /metrics, by name with labels; see parseMetrics. */
export type Metrics = Record<string, number>;

/** One line of the file: all services of the project at one moment (ms since 1970). */
export type Sample = {
  atMs: number;
  services: Record<string, Usage>;
  /** By service, where /metrics could be read. */
  metrics?: Record<string, Metrics>;
};

const usage = `Usage: usage.ts --project NAME --out FILE.jsonl

Samples CPU and memory of every running container of a docker compose project, from the cgroups (v1 and v2)
of this machine. Writes one line of JSON at the start, one each second, and one at the end (SIGTERM or
Ctrl-C). If a container listens on a Unix socket in a volume that this user can read (environment SOCKET),
/metrics is sampled, too: at most every five seconds, and at the end.

  --project NAME     the compose project, as "docker compose ls" names it
  --out FILE.jsonl   file to write
  -h, --help         this text`;

const metricsTimeoutMs = 500;
const minMetricsIntervalMs = 4990; // five seconds, because a timer may fire early

type Service = {
  groups: CgroupDirs;
  /** The Unix socket it listens on, as a path on this machine. */
  socket: string | undefined;
};

/** The project's running containers by service. The second container of a service is `service-2`. */
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
 * The path of a container's SOCKET on this machine; undefined if it has none, or none in a mount. `env` and `mounts`
 * are as "docker inspect" prints them.
 */
export function findSocket(
  env: readonly string[] | null,
  mounts: readonly { Source: string; Destination: string }[] | null,
): string | undefined {
  const socket = env?.find((entry) => entry.startsWith("SOCKET="))?.slice("SOCKET=".length);
  const mount = mounts?.find(({ Destination }) => socket?.startsWith(`${Destination}/`));
  return socket && mount ? join(mount.Source, socket.slice(mount.Destination.length)) : undefined;
}

/** The values of the cache, the group commit and the process in Prometheus' text format. */
export function parseMetrics(text: string): Metrics {
  const lines = text.matchAll(
    /^((?:pessoas_cache|pessoas_batch|process_cpu|process_resident)_[a-z_]+(?:\{[^}]*\})?) (\S+)$/gm,
  );
  return Object.fromEntries([...lines].map(([, name = "", value]) => [name, Number(value)]));
}

/** The values at `url`/metrics, over the Unix socket if given; undefined if there are none. */
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
      // A container that stops or restarts is left out of this line.
    }
  }
  if (withMetrics) {
    const sockets = [...services].flatMap(([name, { socket }]) => (socket ? [{ name, socket }] : []));
    await Promise.all(
      sockets.map(async ({ name, socket }) => {
        const values = await readMetrics("http://localhost", socket);
        if (values) metrics[name] = values;
      }),
    );
  }
  return { atMs, services: used, ...(Object.keys(metrics).length > 0 ? { metrics } : {}) };
}

/** Samples a compose project at once, every `intervalMs`, and at `stop`. Throws if it cannot be measured. */
export async function startSampling(project: string, intervalMs: number, keep: (sample: Sample) => void) {
  const services = findServices(project);
  let askedMs = 0;
  const take = async (last = false) => {
    // A scrape of /metrics costs the registry CPU, so it is only as frequent as the charts need.
    const withMetrics = last || Date.now() - askedMs >= minMetricsIntervalMs;
    if (withMetrics) askedMs = Date.now();
    keep(await sample(services, withMetrics));
  };
  let taking = take();
  await taking;
  const timer = setInterval(() => {
    taking = taking.then(() => take());
  }, intervalMs);
  return {
    async stop() {
      clearInterval(timer);
      await taking;
      await take(true);
    },
  };
}

function docker(...args: string[]): string {
  const { exitCode, stdout, stderr } = Bun.spawnSync(["docker", ...args]);
  if (exitCode !== 0) throw new Error(`docker ${args[0]}: ${stderr.toString().trim()}`);
  return stdout.toString().trim();
}

export type ServiceUse = {
  userS: number;
  systemS: number;
  throttledS: number;
  peakBytes: number;
  peakWorkingSetBytes: number;
  cpuLimit: number | null;
  memoryLimitBytes: number | null;
  restarts: number;
};

/**
 * The use of each service between the first sample and the last. A counter that falls means that the container
 * restarted; the use before the fall still counts.
 */
export function sumUsage(samples: readonly Sample[]): Record<string, ServiceUse> {
  const names = new Set(samples.flatMap((sample) => Object.keys(sample.services)));
  const uses: Record<string, ServiceUse> = {};
  for (const name of names) {
    const own = samples.flatMap((sample) => sample.services[name] ?? []);
    let [userS, systemS, throttledS, restarts] = [0, 0, 0, 0];
    own.slice(1).forEach((now, index) => {
      const before = own[index];
      if (!before) return;
      const restarted = now.userS + now.systemS < before.userS + before.systemS;
      if (restarted) restarts++;
      userS += now.userS - (restarted ? 0 : before.userS);
      systemS += now.systemS - (restarted ? 0 : before.systemS);
      throttledS += now.throttledS - (restarted ? 0 : before.throttledS);
    });
    uses[name] = {
      userS: round(userS, 3),
      systemS: round(systemS, 3),
      throttledS: round(throttledS, 3),
      peakBytes: Math.max(...own.map((use) => use.peakBytes ?? use.memoryBytes)),
      peakWorkingSetBytes: Math.max(...own.map((use) => use.workingSetBytes)),
      cpuLimit: own[0]?.cpuLimit ?? null,
      memoryLimitBytes: own[0]?.memoryLimitBytes ?? null,
      restarts,
    };
  }
  return uses;
}

/** The highest sum of all working sets at one moment, in bytes; null without samples. */
export function peakOfAll(samples: readonly Sample[]): number | null {
  const sums = samples.map(({ services }) =>
    Object.values(services).reduce((sum, use) => sum + use.workingSetBytes, 0),
  );
  return sums.length === 0 ? null : Math.max(...sums);
}

/** The text of usage.jsonl. */
export function readSamples(text: string): Sample[] {
  const lines = text.split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line) as Sample);
}

async function main(): Promise<void> {
  const { project, out } = readArguments(usage, { project: { type: "string" }, out: { type: "string" } });
  if (!project || !out) throw new RangeError("--project and --out are needed; see --help");

  writeFileSync(out, "");
  const sampling = await startSampling(project, 1000, (sample) =>
    appendFileSync(out, `${JSON.stringify(sample)}\n`),
  );
  const stopped = Promise.withResolvers<void>();
  process.on("SIGTERM", () => stopped.resolve());
  process.on("SIGINT", () => stopped.resolve());
  await stopped.promise;
  await sampling.stop();
  process.exit(0);
}

if (import.meta.main) await runScript(main);
