import { readdirSync, readFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { client } from "../../tests/helpers/requests.ts";

export type Options = {
  port: number;
  /** Name of the compose project; a name of this run's own if not given. */
  project?: string | undefined;
  /** Compose files, seen from the entry's folder; what compose finds there if empty. */
  files: string[];
  env: Record<string, string>;
  /** Whether the load goes to the container that publishes the port, past docker-proxy. */
  direct: boolean;
  /** Services that are the application or the database. Told by image and port if empty. */
  api: string[];
  db: string[];
};

type Service = {
  image?: string;
  build?: unknown;
  cpus?: number;
  mem_limit?: string;
  deploy?: { resources?: { limits?: { cpus?: number | string; memory?: string } } };
};
type Config = { services: Record<string, Service> };
export type Project = ReturnType<typeof project>;

const databases = /postgres|mysql|mariadb|mongo|citus|cockroach|yugabyte|scylla|cassandra/;
const databasePorts = /\b(5432|3306|27017|26257|9042)\/tcp/;
const proxies = /nginx|haproxy|caddy|traefik|envoy|openresty/;
const caches = /redis|valkey|keydb|dragonfly|memcached|rabbitmq|nats|kafka/;

/** Resolves when `check` does, asked again every 100 ms; undefined when it did not within so many ms. */
export async function within<T>(
  ms: number,
  signal: AbortSignal,
  check: () => T | undefined | Promise<T | undefined>,
): Promise<T | undefined> {
  for (const endMs = performance.now() + ms; performance.now() < endMs; await Bun.sleep(100)) {
    signal.throwIfAborted();
    const result = await check();
    if (result !== undefined) return result;
  }
  return undefined;
}

/** The compose project in a folder. All of it has the label of its own project, and nothing else is touched. */
export function project(folder: string, options: Options, abandoned: AbortSignal) {
  const { port, files } = options;
  const name = options.project ?? `judge-${process.pid}`;
  const url = `http://127.0.0.1:${port}`;
  const scaled = join(tmpdir(), `${name}.json`);
  const { COMPOSE_FILE, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES, ...rest } = process.env;
  let given = files.flatMap((file) => ["--file", file]);

  /** Away from the terminal's Ctrl-C: a compose that is cut off could leave what it was about to make. */
  async function docker(...args: string[]): Promise<string> {
    const child = Bun.spawn(["docker", ...args], {
      cwd: folder,
      env: { ...rest, ...options.env },
      stdin: "ignore",
      stdout: "pipe",
      stderr: "pipe",
      detached: true,
    });
    const [out, problems] = await Promise.all([child.stdout.text(), child.stderr.text()]);
    if ((await child.exited) === 0) return out.trim();
    const reason = problems.trim().split("\n").at(-1) || out.trim();
    throw new Error(`docker ${args.find((arg) => /^[a-z]+$/.test(arg) && arg !== "compose")}: ${reason}`);
  }
  const compose = (...args: string[]) =>
    docker("compose", "--project-name", name, "--project-directory", folder, ...given, ...args);
  const labelled = ["--filter", `label=com.docker.compose.project=${name}`];
  const list = async (...what: string[]) =>
    (await docker(...what, "--quiet", ...labelled)).split("\n").filter(Boolean);

  async function containers() {
    const ids = await list("ps", "--all");
    if (ids.length === 0) return [];
    const all = JSON.parse(await docker("inspect", ...ids)) as {
      Id: string;
      RestartCount: number;
      State: { Status: string; ExitCode: number };
      Config: { Image: string; Labels: Record<string, string>; ExposedPorts?: Record<string, object> };
    }[];
    return all.map(({ Id: id, RestartCount: restarts, State, Config: { Image, Labels, ExposedPorts } }) => {
      const service = Labels["com.docker.compose.service"] ?? "";
      const text = `${Image.replace(name, "")} ${service}`;
      const ports = Object.keys(ExposedPorts ?? {}).join(" ");
      const [isApi, isDb] = [options.api.includes(service), options.db.includes(service)];
      const role = isApi
        ? "api"
        : isDb || (databases.test(text) && options.db.length === 0) || databasePorts.test(ports)
          ? "db"
          : proxies.test(text)
            ? "proxy"
            : caches.test(text) || options.api.length > 0
              ? "other"
              : "api";
      return { id, service, role, restarts, state: State.Status, exitCode: State.ExitCode };
    });
  }

  /** Throws when a container has ended, or restarts over and over. */
  async function failing() {
    const bad = (await containers()).find(
      ({ state, exitCode, restarts }) => (state === "exited" && exitCode !== 0) || restarts > 5,
    );
    if (!bad) return;
    const said = await docker("logs", "--tail", "3", bad.id).catch(() => "");
    const how = bad.restarts > 5 ? "restarts over and over" : `has ended with exit code ${bad.exitCode}`;
    throw new Error(`container ${bad.service} ${how}${said && `: ${said.replaceAll("\n", " ")}`}`);
  }

  const answers = () =>
    client(url, { signal: AbortSignal.timeout(5000) })
      .get("/contagem-pessoas")
      .then(
        ({ ok }) => ok || undefined,
        () => undefined,
      );

  /** The address of the container that publishes the port. Throws where there is none. */
  async function addressOf(): Promise<string> {
    type Network = {
      Ports: Record<string, { HostPort: string }[] | null>;
      Networks: Record<string, { IPAddress: string }>;
    };
    for (const id of await list("ps")) {
      const { Ports, Networks } = JSON.parse(
        await docker("inspect", "--format", "{{json .NetworkSettings}}", id),
      ) as Network;
      const inside = Object.entries(Ports).find(([, to]) =>
        to?.some(({ HostPort }) => HostPort === String(port)),
      );
      const address = Object.values(Networks)[0]?.IPAddress;
      if (inside && address) return `http://${address}:${Number.parseInt(inside[0], 10)}`;
    }
    throw new Error(`--direct: no container publishes port ${port}`);
  }

  async function config(): Promise<Config> {
    return JSON.parse(await compose("config", "--format", "json")) as Config;
  }

  return {
    name,
    url,
    /** Where to send the load. */
    loadUrl: async () => (options.direct ? await addressOf() : url),
    port,
    containers,
    failing,
    /**
     * Builds and starts it; resolves when it answers. `budget`: the sum that all CPU limits are scaled to. `started` is
     * called when there will be something to take down.
     */
    async up(budget: number | undefined, started: () => void): Promise<void> {
      if (await isListening(port))
        throw new Error(`port ${port} is taken, by something else than this entry`);
      const described = await config();
      for (const { image, build } of Object.values(described.services)) {
        if (build !== undefined || image === undefined) continue;
        abandoned.throwIfAborted();
        const there = await docker("image", "inspect", image).catch(() => undefined);
        if (there === undefined)
          await docker("pull", "--quiet", image).catch((error: Error) => {
            throw new Error(`the image ${image} is missing: ${error.message}`);
          });
      }
      if (budget !== undefined) {
        await Bun.write(scaled, JSON.stringify(scale(described, budget)));
        given = ["--file", scaled];
      }
      abandoned.throwIfAborted();
      if ((await containers()).length > 0) throw new Error(`the compose project ${name} exists already`);
      started();
      await compose("up", "--detach", "--build", "--remove-orphans");
      let polls = 0;
      const up = await within(120_000, abandoned, async () => {
        if (polls++ % 20 === 19) await failing();
        return await answers();
      });
      if (!up) {
        await failing();
        throw new Error(`nobody answers GET ${url}/contagem-pessoas with 200 within 120 s`);
      }
    },
    /** kill -9 of containers. */
    kill: (ids: string[]) => docker("kill", "--signal", "KILL", ...ids),
    /** Starts what does not run. */
    again: () => compose("up", "--detach", "--no-build", "--no-recreate"),
    /** Removes it with its volumes and the images that were built for it, also when it is abandoned. */
    async down(): Promise<void> {
      const everything = ["--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5"];
      let problem = "";
      for (let attempt = 0; attempt < 3; attempt++) {
        problem = await compose("down", ...everything).then(
          () => "",
          (error: Error) => error.message,
        );
        if ((await list("ps", "--all")).length === 0) break;
      }
      if (problem !== "") console.error(problem);
      given = files.flatMap((file) => ["--file", file]);
      await rm(scaled, { force: true });
    },
  };
}

async function isListening(port: number): Promise<boolean> {
  const socket = { data() {} };
  const connection = await Bun.connect({ hostname: "127.0.0.1", port, socket }).catch(() => undefined);
  connection?.end();
  return connection !== undefined;
}

/** The project with its CPU limits scaled to a sum. Throws where a service has none. */
export function scale(config: Config, budget: number): Config {
  const limitOf = (service: Service) => Number(service.deploy?.resources?.limits?.cpus ?? service.cpus);
  const sum = Object.values(config.services).reduce((all, service) => all + limitOf(service), 0);
  if (!(sum > 0)) throw new Error("--budget: a service has no CPU limit that could be scaled");
  const scaled = Object.entries(config.services).map(([name, { cpus: _, ...service }]) => {
    const cpus = ((limitOf(config.services[name] as Service) * budget) / sum).toFixed(3);
    const { resources, ...deploy } = service.deploy ?? {};
    const limits = { ...resources?.limits, cpus };
    return [name, { ...service, deploy: { ...deploy, resources: { ...resources, limits } } }];
  });
  return { ...config, services: Object.fromEntries(scaled) };
}

/** CPU-seconds of the docker-proxy processes that pass a published port on; 0 where there is none. */
export async function proxySeconds(port: number): Promise<number> {
  let ticks = 0;
  for (const process of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const read = (name: string) => readFileSync(join("/proc", process, name), "utf8");
      const command = read("cmdline").split("\0");
      if (
        !command[0]?.endsWith("docker-proxy") ||
        command[command.indexOf("-host-port") + 1] !== String(port)
      )
        continue;
      const [, , , , , , , , , , , user, system] = read("stat").split(") ").at(-1)?.split(" ") ?? [];
      ticks += Number(user) + Number(system);
    } catch {
      // It has ended meanwhile.
    }
  }
  return ticks / 100;
}

/** CPU-seconds in which this machine was busy since its start. */
export function busySeconds(): number {
  const [line = ""] = readFileSync("/proc/stat", "utf8").split("\n", 1);
  const [, user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = line.split(/\s+/).map(Number);
  return (user + nice + system + irq + softirq) / 100;
}
