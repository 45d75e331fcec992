// Attacks the topology of the contest, and asks a well-behaved client beside it how it is. Needs Docker with Compose.
import { join } from "node:path";
import { parseArgs } from "node:util";
import { type Service, services, topology } from "../contest/topology.ts";
import { attacks } from "./attacks.ts";
import type { Experience } from "./neighbour.ts";

const promiseMs = 1000; // of the p99 of a well-behaved client's creates and reads
const usage = `Usage: bun run test:hostile [--people N] [--attack NAME]...

Attacks the contest's topology through nginx, for 12 s each, while a client beside it creates, reads and searches 20
times a second. Exits with 1 when one of its creates or reads fails or their p99 is over ${promiseMs} ms, when an attack gets
an answer that it should not, or when a process was killed for its memory. It runs on a port and under a project name of
its own, and removes them.

  --people N       how many are in the registry before, default 50000; a million take minutes to fill in
  --attack NAME    only this one; may be given several times
  -h, --help       this text

Attacks: ${attacks.map(({ name }) => name).join(", ")}
idle needs 10,500 open files (ulimit -n).`;

const { people, chosen } = readArguments();
const abandoned = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => abandoned.abort(new Error(signal)));
}
const { url, docker, compose, up, inside, sql, remove } = topology(abandoned.signal, { name: "hostile" });
const table = [
  [
    "attack",
    "create p50",
    "p99",
    "read p99",
    "search p99",
    "searches refused",
    "failed",
    "nginx",
    "api1",
    "api2",
    "db",
  ],
  ["---", ...new Array<string>(10).fill("---:")],
];
let passed = 0;
let failed = 0;

try {
  await up();
  await fill();
  await check("nobody", async () => {
    await Bun.sleep(12_000);
    return "no attack, to compare with";
  });
  for (const { name, run } of chosen) await check(name, () => run(url, abandoned.signal));
} catch (error) {
  if (!abandoned.signal.aborted) throw error;
} finally {
  await remove();
}
for (const row of table) console.log(`| ${row.join(" | ")} |`);
if (abandoned.signal.aborted) console.log("interrupted");
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && !abandoned.signal.aborted ? 0 : 1);

async function check(name: string, attack: () => Promise<string>) {
  abandoned.signal.throwIfAborted();
  const neighbour = settle();
  const problems: string[] = [];
  let became = "";
  try {
    became = await attack();
  } catch (error) {
    abandoned.signal.throwIfAborted();
    problems.push((error as Error).message);
  }
  const { create, read, search } = await neighbour.leave();
  const failures = [...create.failures, ...read.failures];
  const p99 = Math.max(percentile(create.ms, 99), percentile(read.ms, 99));
  if (failures.length > 0)
    problems.push(`the client beside it: ${failures.length} × ${failures[0]} and the like`);
  if (p99 > promiseMs) problems.push(`the client beside it: p99 ${p99} ms`);
  const [wrong] = search.failures.filter((each) => !each.startsWith("503"));
  if (wrong) problems.push(`a search beside it: ${wrong}`);
  const memory = await Promise.all(services.map(memoryOf));
  for (const [i, { killed }] of memory.entries())
    if (killed > 0) problems.push(`${services[i]}: killed for its memory`);
  for (const service of services) {
    const id = await compose("ps", "--all", "--quiet", service);
    const restarts = await docker("inspect", "--format", "{{.RestartCount}}", id);
    if (restarts !== "0") problems.push(`${service}: has ended ${restarts} times`);
  }
  if (problems.length === 0) passed++;
  else failed++;
  table.push([
    name,
    ...[percentile(create.ms, 50), percentile(create.ms, 99), percentile(read.ms, 99)].map(
      (ms) => `${ms} ms`,
    ),
    search.ms.length > 0 ? `${percentile(search.ms, 99)} ms` : "",
    `${search.failures.length} of ${search.failures.length + search.ms.length}`,
    String(failures.length),
    ...memory.map(({ peak }) => `${Math.round(peak / 2 ** 20)} MiB`),
  ]);
  console.error(`${problems.length === 0 ? "ok  " : "FAIL"}  ${name}: ${became}`);
  for (const problem of problems) console.error(`      ${problem}`);
  if (problems.length > 0) console.error(await compose("logs", "--tail", "5"));
}

/** A client beside the attack; `leave` resolves with what it has seen. */
function settle() {
  const child = Bun.spawn([process.execPath, join(import.meta.dir, "neighbour.ts"), url], {
    stdin: "pipe",
    stdout: "pipe",
    stderr: "inherit",
  });
  return {
    async leave(): Promise<Experience> {
      child.stdin.end();
      return (await new Response(child.stdout).json()) as Experience;
    },
  };
}

function percentile(ms: number[], percent: number): number {
  const sorted = ms.toSorted((a, b) => a - b);
  return Math.round(sorted[Math.ceil((percent / 100) * sorted.length) - 1] ?? Number.POSITIVE_INFINITY);
}

/** The largest that it was so far, file cache included, and how many processes in it were killed; cgroups 2, or 1. */
async function memoryOf(service: Service) {
  const read =
    "cd /sys/fs/cgroup; cat memory.peak memory.events 2>&- || cat memory/memory.max_usage_in_bytes memory/memory.oom_control";
  const text = await inside(service, "sh", "-c", read);
  return { peak: Number(/^\d+/.exec(text)?.[0]), killed: Number(/oom_kill (\d+)/.exec(text)?.[1]) };
}

/** Straight into the table, with more CPU than the contest allows: what is measured comes later. */
async function fill() {
  const id = await compose("ps", "--quiet", "db");
  const limit = await docker("inspect", "--format", "{{.HostConfig.NanoCpus}}", id);
  await docker("update", "--cpus", "2", id);
  const pick = (from: string, salt: string) =>
    `(array[${from}])[1 + abs(hashtext('${salt}' || n)) % ${from.split(",").length}]`;
  const first = pick("'Ana','José','Maria','João','Zoë','Ünal','Francisca','Antônio','Li','Beatriz'", "f");
  const last = pick(
    "'Silva','Santos','Oliveira','Souza','Pereira','Ferreira','Alves','Lima','Gomes','Ribeiro'",
    "l",
  );
  const language = pick("'C#','Java','Node','Oracle','Postgres','Go','Rust','PHP','Ruby','Elixir'", "s");
  for (let from = 1; from <= people; from += 50_000) {
    await sql(`
      insert into pessoas (id, apelido, nome, nascimento, stack, busca)
      select md5(n::text)::uuid, apelido, nome, date '1950-01-01' + n % 20000, json_build_array(stack),
        -- as busca.ts writes it
        translate(lower(apelido || chr(1) || nome || chr(1) || stack), ' #-', '\u3c60\u3c63\u3c6d')
      from generate_series(${from}, ${Math.min(people, from + 49_999)}) n,
        lateral (select 'n' || n || '-' || substr(md5('a' || n), 1, 8) as apelido,
          ${first} || ' ' || ${last} || ' ' || substr(md5('b' || n), 1, 12) as nome, ${language} as stack) person`);
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kfilling in: ${from + 49_999} of ${people}`);
  }
  await sql("vacuum analyze pessoas");
  await docker("update", "--cpus", String(Number(limit) / 1e9), id);
  console.error(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${people} people in the registry`);
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        people: { type: "string", default: "50000" },
        attack: { type: "string", multiple: true },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    const people = Number(values.people);
    if (!Number.isSafeInteger(people) || people < 0)
      throw new RangeError(`--people: expected a whole number, got "${values.people}"`);
    const unknown = values.attack?.find((name) => !attacks.some((each) => each.name === name));
    if (unknown !== undefined)
      throw new RangeError(`--attack: there is none called "${unknown}"; see --help`);
    return { people, chosen: attacks.filter(({ name }) => values.attack?.includes(name) ?? true) };
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}
