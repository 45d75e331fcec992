import { join } from "node:path";

export const services = ["nginx", "api1", "api2", "db"] as const;
export type Service = (typeof services)[number];
export type Topology = ReturnType<typeof topology>;

const here = join(import.meta.dir, "..", "..");

type TopologyOptions = {
  /** The prefix of the project's name. */
  name?: string;
  /** A compose file, relative to the root, that overrides the contest's, and its variables. */
  override?: string | undefined;
  env?: Record<string, string>;
  /** Another checkout of this project to run. */
  root?: string;
};

/** Aborted by Ctrl-C and by SIGTERM, so that the script can remove what it has started. */
export function abortedBySignals(): AbortController {
  const abandoned = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => abandoned.abort(new Error(signal)));
  }
  return abandoned;
}

/** docker-compose.yml as a new project, on free ports. */
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

  const run = (args: string[], more: RunOptions = {}) => runDocker(args, { cwd: root, env, ...more });
  const docker = (...args: string[]) => {
    abandoned.throwIfAborted();
    return run(args, { signal: abandoned });
  };
  const compose = (...args: string[]) => docker("compose", ...args);
  const psql = "compose exec -T db psql -U postgres -d pessoas -qAt -v ON_ERROR_STOP=1".split(" ");

  return {
    url: `http://127.0.0.1:${port}`,
    /** The URL of the metrics. */
    metricsUrl: `http://127.0.0.1:${metricsPort}`,
    project,
    docker,
    compose,
    /** Resolves when all services are healthy. */
    up: () => compose("up", "-d", "--build", "--wait"),
    /** The output of a command inside a container. */
    inside: (service: Service, ...command: string[]) => compose("exec", "-T", service, ...command),
    /** The output of psql for the commands of one session. */
    sql: (...commands: string[]) => docker(...psql, ...commands.flatMap((command) => ["-c", command])),
    /** Inserts these lines by COPY. */
    copyInto(table: string, lines: Iterable<string>): Promise<string> {
      abandoned.throwIfAborted();
      return run([...psql, "-c", `copy ${table} from stdin`], { signal: abandoned, input: lines });
    },
    /** Runs `store`, which inserts persons directly, with more CPU than the limit. */
    async fill(store: () => Promise<unknown>): Promise<void> {
      const id = await compose("ps", "--quiet", "db");
      const limit = await docker("inspect", "--format", "{{.HostConfig.NanoCpus}}", id);
      await docker("update", "--cpus", "2", id);
      await store();
      await docker("update", "--cpus", String(Number(limit) / 1e9), id);
      // A restart gives Postgres more buffers for more data, and instances learn which terms are rare or complete.
      await compose("restart", "db", "api1", "api2");
      await compose("up", "-d", "--wait");
    },
    /** The number of requests that an instance has answered, by its metrics. */
    async answered(instance: Service): Promise<number> {
      const ask =
        "process.stdout.write(await (await fetch('http://x/metrics', { unix: process.env.SOCKET })).text())";
      const metrics = await compose("exec", "-T", instance, "bun", "-e", ask);
      const counts = metrics.matchAll(/^pessoas_http_request_duration_seconds_count.* (\d+)$/gm);
      return [...counts].reduce((sum, [, n]) => sum + Number(n), 0);
    },
    /**
     * The peak memory in bytes, file cache included; the number of processes killed for memory (cgroups 2 or 1); and the
     * number of restarts.
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
    /** The names of its remaining containers, volumes and networks. */
    async leftovers(): Promise<string> {
      const label = ["--filter", `label=com.docker.compose.project=${project}`];
      const lists = [
        docker("ps", "--all", "--quiet", ...label),
        docker("volume", "ls", "--quiet", ...label),
        docker("network", "ls", "--quiet", ...label),
      ];
      return (await Promise.all(lists)).join("\n").trim();
    },
    /** Removes it, also after an abort. */
    remove: () => run(["compose", "down", "--volumes", "--rmi", "local", "--timeout", "5"]),
  };
}

type RunOptions = {
  cwd?: string;
  env?: Record<string, string | undefined>;
  signal?: AbortSignal;
  /** Whether the terminal's Ctrl-C does not reach it. */
  detached?: boolean;
  /** Its standard input. */
  input?: Iterable<string>;
};

/** Runs docker. Resolves with its output, rejects with its errors. */
export async function runDocker(args: string[], { input, ...options }: RunOptions): Promise<string> {
  const child = Bun.spawn(["docker", ...args], {
    ...options,
    stdin: input ? "pipe" : "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let fault = "";
  const written =
    child.stdin &&
    input &&
    write(child.stdin, input).catch((error: Error) => {
      fault = error.message; // the process has ended early, or `input` has failed
      child.kill();
    });
  const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text(), written]);
  if ((await child.exited) !== 0)
    throw new Error(`docker ${args.join(" ")}: ${problems.trim() || out.trim() || fault}`);
  return out.trim();
}

async function write(sink: Bun.FileSink, lines: Iterable<string>): Promise<void> {
  let waiting = 0;
  for (const line of lines) {
    sink.write(line);
    if (++waiting % 1000 === 0) await sink.flush();
  }
  await sink.end();
}

/** A port that is free on all addresses. Throws if `wanted` is taken. */
export function freePort(wanted = 0): number {
  const listener = Bun.listen({ hostname: "0.0.0.0", port: wanted, socket: { data() {} } });
  const { port } = listener;
  listener.stop(true);
  return port;
}
