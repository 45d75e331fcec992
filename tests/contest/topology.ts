import { join } from "node:path";

export const services = ["nginx", "api1", "api2", "db"] as const;
export type Service = (typeof services)[number];
export type Topology = ReturnType<typeof topology>;

const here = join(import.meta.dir, "..", "..");

export type TopologyOptions = {
  /** What the name of the project begins with. */
  name?: string;
  /** A compose file, seen from the root of the repository, that changes the one of the contest; and its variables. */
  override?: string | undefined;
  env?: Record<string, string>;
  /** Another checkout of this project, whose it is. */
  root?: string;
};

/** docker-compose.yml as a project of its own on ports of its own, beside whatever else is running. */
export function topology(
  abandoned: AbortSignal,
  { name = "contest", override, env: more = {}, root = here }: TopologyOptions = {},
) {
  const port = freePort();
  const metricsPort = freePort();
  const project = `${name}-${process.pid}`;
  const env = {
    ...process.env,
    PORT: String(port),
    METRICS_PORT: String(metricsPort),
    COMPOSE_PROJECT_NAME: project,
    COMPOSE_FILE: ["docker-compose.yml", override ?? []].flat().join(":"),
    COMPOSE_PATH_SEPARATOR: ":",
    ...more,
  };

  /** Resolves with what the command printed, rejects with what it complained about. `input` is what it reads. */
  async function run(
    args: string[],
    options: { signal?: AbortSignal } = {},
    input?: Iterable<string>,
  ): Promise<string> {
    const child = Bun.spawn(["docker", ...args], {
      ...options,
      cwd: root,
      env,
      stdin: input ? "pipe" : "ignore",
      stdout: "pipe",
      stderr: "pipe",
    });
    let fault = "";
    const written =
      child.stdin &&
      input &&
      write(child.stdin, input).catch((error: Error) => {
        fault = error.message; // the end of a process that has complained, or of `input`
        child.kill();
      });
    const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text(), written]);
    if ((await child.exited) !== 0)
      throw new Error(`docker ${args.join(" ")}: ${problems.trim() || out.trim() || fault}`);
    return out.trim();
  }
  const docker = (...args: string[]) => {
    abandoned.throwIfAborted();
    return run(args, { signal: abandoned });
  };
  const compose = (...args: string[]) => docker("compose", ...args);
  const psql = "compose exec -T db psql -U postgres -d pessoas -qAt -v ON_ERROR_STOP=1".split(" ");

  return {
    url: `http://127.0.0.1:${port}`,
    /** Where the host has the metrics. */
    metricsUrl: `http://127.0.0.1:${metricsPort}`,
    project,
    docker,
    compose,
    /** Resolves when everything is healthy. */
    up: () => compose("up", "-d", "--build", "--wait"),
    /** What a command prints inside a container. */
    inside: (service: Service, ...command: string[]) => compose("exec", "-T", service, ...command),
    /** What psql prints for commands of one session, one after the other. */
    sql: (...commands: string[]) => docker(...psql, ...commands.flatMap((command) => ["-c", command])),
    /** Stores the lines of a COPY. */
    copyInto(table: string, lines: Iterable<string>): Promise<string> {
      abandoned.throwIfAborted();
      return run([...psql, "-c", `copy ${table} from stdin`], { signal: abandoned }, lines);
    },
    /** `store` puts persons into the database, past the instances, with more CPU than the limit. */
    async fill(store: () => Promise<unknown>): Promise<void> {
      const id = await compose("ps", "--quiet", "db");
      const limit = await docker("inspect", "--format", "{{.HostConfig.NanoCpus}}", id);
      await docker("update", "--cpus", "2", id);
      await store();
      await docker("update", "--cpus", String(Number(limit) / 1e9), id);
      // As they start Postgres takes more buffers for more data; the instances learn which terms are rare, and which have
      // rows enough.
      await compose("restart", "db", "api1", "api2");
      await compose("up", "-d", "--wait");
    },
    /** Requests that an instance has answered, by its metrics. */
    async answered(instance: Service): Promise<number> {
      const ask =
        "process.stdout.write(await (await fetch('http://x/metrics', { unix: process.env.SOCKET })).text())";
      const metrics = await compose("exec", "-T", instance, "bun", "-e", ask);
      const counts = metrics.matchAll(/^pessoas_http_request_duration_seconds_count.* (\d+)$/gm);
      return [...counts].reduce((sum, [, n]) => sum + Number(n), 0);
    },
    /**
     * The most memory that it had so far, file cache included; how many processes in it were killed for memory (cgroups 2,
     * or 1); and how often it has ended.
     */
    async health(service: Service) {
      const read =
        "cd /sys/fs/cgroup; cat memory.peak memory.events 2>&- || cat memory/memory.max_usage_in_bytes memory/memory.oom_control";
      const text = await compose("exec", "-T", service, "sh", "-c", read);
      const id = await compose("ps", "--all", "--quiet", service);
      return {
        peakBytes: Number(/^\d+/.exec(text)?.[0]),
        killed: Number(/oom_kill (\d+)/.exec(text)?.[1]),
        restarts: Number(await docker("inspect", "--format", "{{.RestartCount}}", id)),
      };
    },
    /** Names of what still exists of it. */
    async leftovers(): Promise<string> {
      const label = ["--filter", `label=com.docker.compose.project=${project}`];
      const lists = [
        docker("ps", "--all", "--quiet", ...label),
        docker("volume", "ls", "--quiet", ...label),
        docker("network", "ls", "--quiet", ...label),
      ];
      return (await Promise.all(lists)).join("\n").trim();
    },
    /** Also when it is abandoned. */
    remove: () => run(["compose", "down", "--volumes", "--rmi", "local", "--timeout", "5"]),
  };
}

async function write(sink: Bun.FileSink, lines: Iterable<string>): Promise<void> {
  let waiting = 0;
  for (const line of lines) {
    sink.write(line);
    if (++waiting % 1000 === 0) await sink.flush();
  }
  await sink.end();
}

/** A port that nobody listens on, of any address. */
export function freePort(): number {
  const listener = Bun.listen({ hostname: "0.0.0.0", port: 0, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
