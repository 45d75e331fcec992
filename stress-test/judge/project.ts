import { freePort, runDocker } from "../../tests/helpers/topology.ts";
import type { Options } from "../judge.ts";
import { brief, get } from "../measure/audit.ts";

export type Project = ReturnType<typeof project>;
export type Container = Awaited<ReturnType<Project["running"]>>[number];

const databases =
  /postgres|mysql|mariadb|mongo|citus|cockroach|yugabyte|scylla|cassandra|\b(5432|3306|27017|26257|9042)\/tcp/;
const helpers =
  /nginx|haproxy|caddy|traefik|envoy|openresty|redis|valkey|keydb|dragonfly|memcached|rabbitmq|nats|kafka/;

/** The compose project in a folder. All of it has the label of its own project, and nothing else is touched. */
export function project(folder: string, options: Options, signal: AbortSignal) {
  const { port, api, db } = options;
  const name = options.project ?? `judge-${process.pid}`;
  const url = `http://127.0.0.1:${port}`;
  const { COMPOSE_FILE, COMPOSE_PROJECT_NAME, COMPOSE_PROFILES, ...rest } = process.env;
  const env = { ...rest, ...options.env };
  const files = options.file.flatMap((file) => ["--file", file]);
  let started = false;

  /** Detached, because a compose that is cut off could leave what it was about to make. */
  const docker = (...args: string[]) =>
    runDocker(args, { cwd: folder, env, detached: true }).catch(({ message }: Error) => {
      throw new Error(message.split("\n").at(-1));
    });
  const compose = (...args: string[]) => docker("compose", "--project-name", name, ...files, ...args);

  async function containers() {
    const filter = `label=com.docker.compose.project=${name}`;
    const service = '{{.Label "com.docker.compose.service"}}';
    const format = `{{.ID}}\t${service}\t{{.Image}}\t{{.Ports}}\t{{.Status}}`;
    const lines = await docker("ps", "--all", "--filter", filter, "--format", format);
    return lines.split("\n").flatMap((line) => {
      const [id, service = "", image = "", ports = "", status = ""] = line.split("\t");
      return id ? [{ id, service, ports, status, role: roleOf(service, image, ports) }] : [];
    });
  }
  const running = async () => (await containers()).filter(({ status }) => status.startsWith("Up"));

  function roleOf(service: string, image: string, ports: string): "api" | "db" | "other" {
    const text = [image.replace(name, ""), service, ports].join(" ");
    if (api.includes(service)) return "api";
    if (db.length > 0 ? db.includes(service) : databases.test(text)) return "db";
    return api.length > 0 || helpers.test(text) ? "other" : "api";
  }

  /** Throws when a container's status says that it has failed. */
  async function failing(failed = /^(Exited|Restarting) \((?!0\))/): Promise<void> {
    const bad = (await containers()).find(({ status }) => failed.test(status));
    if (!bad) return;
    const { stdout, stderr } = Bun.spawnSync(["docker", "logs", "--tail", "3", bad.id]);
    const said = `${stdout}${stderr}`.trim().replaceAll("\n", " ");
    throw new Error(`container ${bad.service}: ${bad.status}: ${said || "its log is empty"}`);
  }

  /** Whether `check`, asked every 100 ms, holds within so many ms. */
  async function within(ms: number, check: () => boolean | Promise<boolean>): Promise<boolean> {
    for (const endMs = performance.now() + ms; performance.now() < endMs; await Bun.sleep(100)) {
      signal.throwIfAborted();
      if (await check()) return true;
    }
    return false;
  }

  async function answeredCount(): Promise<{ count: number; said: string }> {
    const { status, body } = await get(url, "/contagem-pessoas");
    const isCount = status >= 200 && status < 300 && /^\s*\d+\s*$/.test(body);
    return { count: isCount ? Number(body) : Number.NaN, said: `${status || ""} ${brief(body)}` };
  }

  /** Asks again for 30 s: a load balancer may take its upstreams for dead for a while (nginx: 10 s). */
  async function count(): Promise<number> {
    let answer = await answeredCount();
    const isAnswered = async () => {
      if (Number.isNaN(answer.count)) answer = await answeredCount();
      return !Number.isNaN(answer.count);
    };
    if (await within(30_000, isAnswered)) return answer.count;
    throw new Error(`GET /contagem-pessoas answers ${answer.said}`);
  }

  /** The count when it is `wanted` or more, or has not changed for 20 s; ms from the first look to the last change. */
  async function counted(wanted: number): Promise<{ count: number; ms: number }> {
    let [last, firstMs, changedMs] = [Number.NaN, 0, 0];
    await within(120_000, async () => {
      const now = (await answeredCount()).count;
      const nowMs = performance.now();
      firstMs ||= nowMs;
      if (now !== last) [last, changedMs] = [now, nowMs];
      return last >= wanted || nowMs - changedMs > 20_000;
    });
    return { count: Number.isNaN(last) ? await count() : last, ms: changedMs - firstMs };
  }

  /** Where to send the load. */
  async function loadUrl(): Promise<string> {
    if (!options.direct) return url;
    for (const { id, ports } of await running()) {
      const [, inside] = new RegExp(`:${port}->(\\d+)/tcp`).exec(ports) ?? [];
      const addresses = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
      if (inside)
        return `http://${(await docker("inspect", "--format", addresses, id)).split(" ")[0]}:${inside}`;
    }
    return url; // on the host's network there is no proxy
  }

  /** Builds and starts it; resolves when it answers, with all CPU limits scaled to the sum `cpus`. */
  async function up(cpus?: number): Promise<void> {
    try {
      freePort(port);
    } catch {
      throw new Error(`port ${port} is taken, by something else than this entry`);
    }
    if ((await containers()).length > 0) throw new Error(`the compose project ${name} exists already`);
    signal.throwIfAborted();
    started = true;
    await compose("up", "--detach", "--build", "--remove-orphans").catch(async (error: Error) => {
      for (const image of (await compose("config", "--images")).split("\n"))
        await docker("image", "inspect", image).catch(() => {
          throw new Error(`the image ${image} is missing: ${error.message}`);
        });
      throw error;
    });
    const isUp = await within(120_000, async () => {
      await failing(/^Exited \((?!0\))/); // not those that compose starts again: they may wait for their database
      const asking = fetch(`${url}/contagem-pessoas`, { signal: AbortSignal.timeout(5000) });
      return (await asking.catch(() => undefined))?.ok ?? false;
    });
    if (!isUp) {
      await failing();
      throw new Error(`nobody answers GET ${url}/contagem-pessoas with 200 within 120 s`);
    }
    if (cpus) await limit(cpus);
  }

  async function limit(cpus: number): Promise<void> {
    const all = await running();
    const format = "{{.HostConfig.NanoCpus}}";
    const limits = (await docker("inspect", "--format", format, ...all.map(({ id }) => id))).split("\n");
    const sum = limits.reduce((sum, limit) => sum + Number(limit), 0);
    for (const [nth, { id, service }] of all.entries()) {
      const share = Number(limits[nth]) / sum;
      if (!(share > 0)) throw new Error(`--budget: ${service} has no CPU limit that could be scaled`);
      await docker("update", "--cpus", (share * cpus).toFixed(3), id);
    }
  }

  const kill = (killed: readonly { id: string }[]) =>
    docker("kill", "--signal", "KILL", ...killed.map(({ id }) => id));
  /** Starts what does not run. */
  const again = () => compose("up", "--detach", "--no-build", "--no-recreate");

  /** Removes it with its volumes and the images that were built for it, also when it is abandoned. */
  async function down(): Promise<void> {
    const all = ["--volumes", "--remove-orphans", "--rmi", "local", "--timeout", "5"];
    if (started) await compose("down", ...all).catch(({ message }: Error) => console.error(message));
  }

  return { name, url, signal, running, failing, within, count, counted, loadUrl, up, kill, again, down };
}
