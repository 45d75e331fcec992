// Tests docker-compose.yml from a client's and from an operator's side. Needs Docker with Compose.
import assert from "node:assert/strict";
import { join } from "node:path";
import fc from "fast-check";
import { readPositionals } from "../../tools/arguments.ts";
import { shapes } from "../helpers/malformed-requests.ts";
import { statusesOf, targets } from "../helpers/request-targets.ts";
import { client, type Found, newPessoa, type Problem, raw, rawRequest } from "../helpers/requests.ts";
import { startLoops, temporaryFolder } from "../helpers/support.ts";
import { abortedBySignals, freePort, type Service, services, topology } from "../helpers/topology.ts";

readPositionals(`Usage: bun run test:contest

Builds and starts docker-compose.yml as a new project on a free port, checks it as a client and as an operator, and
removes it. Exits with 1 if a check fails. Needs Docker with Compose.

  -h, --help   this text`);
const abandoned = abortedBySignals();
const { url, metricsUrl, docker, compose, up, inside, sql, answered, leftovers, remove } = topology(
  abandoned.signal,
);
const { get, post, create, request, search, count } = client(url);
const anew = client(url, { keepalive: false }); // a new connection for each request
const instances = ["api1", "api2"] as const;
/** The output of a shell script inside a container. */
const shell = (service: Service, script: string) => inside(service, "sh", "-c", script);
const notFound = /^HTTP\/1\.1 404 .*\r\n\r\n\{"type":"about:blank","title":"Not Found"/s;
const isProblemType = /^Content-Type: application\/problem\+json\r$/m;
let passed = 0;
let failed = 0;

async function check(title: string, body: () => Promise<void>) {
  if (abandoned.signal.aborted) return;
  try {
    await body();
    passed++;
    console.log(`ok    ${title}`);
  } catch (error) {
    failed++;
    console.log(`FAIL  ${title}: ${(error as Error).message}`);
  }
}

async function isProblem(response: Response, status: number) {
  assert.equal(response.status, status);
  assert.equal(response.headers.get("content-type"), "application/problem+json");
  const problem = (await response.json()) as Problem;
  assert.equal(problem.status, status);
  for (const member of [problem.type, problem.title, problem.detail]) assert.ok(member);
}

/** Creates and reads on many connections during `work`; resolves with the created persons and the failures. */
async function underLoad(work: () => Promise<unknown>) {
  const created: string[] = [];
  const failures: string[] = [];
  const loops = startLoops(16, async () => {
    try {
      const { id } = await create();
      created.push(id);
      const found = await get(`/pessoas/${id}`);
      if (found.status !== 200) throw new Error(`GET ${found.status}: ${await found.text()}`);
      await found.text();
    } catch (error) {
      failures.push((error as Error).message);
    }
  });
  try {
    await work();
  } finally {
    await loops.stop();
  }
  return { created, failures };
}

async function untilReady() {
  while ((await get("/readyz")).status !== 200) {
    abandoned.signal.throwIfAborted();
    await Bun.sleep(50);
  }
}

async function limits(...overrides: string[]) {
  type Config = { services: Record<Service, { deploy: { resources: { limits: Limits } } }> };
  type Limits = { cpus: number; memory: string };
  const files = ["docker-compose.yml", ...overrides].flatMap((file) => ["--file", file]);
  const config = JSON.parse(await compose(...files, "config", "--format", "json")) as Config;
  return services.map((service) => {
    const { cpus, memory } = config.services[service].deploy.resources.limits;
    return { service, cpus: Number(cpus), memory: Number(memory) };
  });
}

async function containers() {
  await check("the limits are in force inside the cgroups", async () => {
    for (const { service, cpus, memory } of await limits()) {
      // Version 2, or 1.
      const quota = await shell(
        service,
        "cd /sys/fs/cgroup; cat cpu.max 2>&- || cat cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us",
      );
      const [runtime, period] = quota.split(/\s/).map(Number);
      assert.equal((runtime as number) / (period as number), cpus, service);
      const bytes = await shell(
        service,
        "cd /sys/fs/cgroup; cat memory.max 2>&- || cat memory/memory.limit_in_bytes",
      );
      assert.equal(Number(bytes), memory, service);
    }
  });

  await check("no process is root, has or can get a capability, or can write to the image", async () => {
    for (const service of services) {
      const status = await inside(service, "cat", "/proc/1/status");
      assert.doesNotMatch(status, /^Uid:.*\b0\b/m, service);
      assert.match(status, /^CapEff:\t0+$/m, service);
      assert.match(status, /^CapBnd:\t0+$/m, service);
      assert.match(status, /^NoNewPrivs:\t1$/m, service);
      await assert.rejects(inside(service, "touch", "/home/x"), /[Rr]ead-only/, service);
    }
  });

  await check(
    "only nginx can be reached, its metrics only from this host, and each service sees only its files",
    async () => {
      const tables = await shell("nginx", "ls -l /proc/1/fd; cat /proc/1/net/tcp /proc/1/net/tcp6");
      const listening = [...tables.matchAll(/^ *\d+: (\w+):(\w{4}) \w+:0000 0A (?:\S+ +){5}(\d+) /gm)]
        .filter(([, , , inode]) => tables.includes(`socket:[${inode}]`))
        .map(([, address, hex]) => [address, Number.parseInt(hex as string, 16)]);
      const port = Number(new URL(url).port);
      const loopback = "0100007F";
      assert.deepEqual(
        listening.toSorted(),
        [
          ["00000000", port],
          [loopback, Number(new URL(metricsUrl).port)],
        ].toSorted(),
      );
      type Process = { Service: string; Publishers: { PublishedPort: number }[] | null };
      const published = (await compose("ps", "--format", "json"))
        .split("\n")
        .flatMap((line) => JSON.parse(line) as Process | Process[])
        .flatMap(({ Service, Publishers }) => (Publishers ?? []).map((each) => [Service, each.PublishedPort]))
        .filter(([, port]) => port !== 0);
      assert.deepEqual(published, []); // nginx shares the network of the host
      await assert.rejects(inside("nginx", "ls", "/run/postgresql"), /No such file/);
      await assert.rejects(inside("nginx", "touch", "/run/api/x"), /Read-only/);
      for (const instance of instances) {
        await assert.rejects(inside(instance, "touch", "/run/postgresql/x"), /Read-only/);
        assert.equal(await shell(instance, "ls /var/lib/postgresql 2>&-; id -un"), "www-data");
      }
    },
  );

  await check("the instances and Postgres have no network", async () => {
    for (const service of [...instances, "db"] as const) {
      const interfaces = [...(await inside(service, "cat", "/proc/net/dev")).matchAll(/^\s*(\w+):/gm)];
      assert.deepEqual(
        interfaces.map(([, name]) => name),
        ["lo"],
        service,
      );
    }
  });

  await check("Postgres commits durably, and the application's role is no superuser", async () => {
    for (const name of ["fsync", "synchronous_commit", "full_page_writes"]) {
      assert.equal(await sql(`show ${name}`), "on");
    }
    assert.equal(await sql("show listen_addresses"), "");
    assert.equal(
      await sql(
        "select distinct usesuper from pg_stat_activity join pg_user using (usename) where application_name = 'pessoas'",
      ),
      "f",
    );
  });
}

/** The result of each statement with the rights of an instance: an SQLSTATE, or "done". */
async function asInstance(statements: string[], who = { username: "pessoas", database: "pessoas" }) {
  const options = { adapter: "postgres", path: "/run/postgresql/.s.PGSQL.5432", max: 1, ...who };
  const script = `const sql = new Bun.SQL(${JSON.stringify(options)});
    for (const statement of ${JSON.stringify(statements)}) {
      console.log(await sql.unsafe(statement).then(() => "done", (error) => error.errno));
    }
    process.exit(0);`;
  return (await inside("api1", "bun", "-e", script)).split("\n");
}

async function roles() {
  const refused = [
    "create table other (a int)",
    "create temporary table other (a int)",
    "create schema other",
    "create extension citext",
    "create index on pessoas (nome)",
    "alter table pessoas add other int",
    "drop table pessoas",
    "truncate pessoas",
    "delete from pessoas",
    "update pessoas set nome = ''",
    "create role other",
    "create database other",
    "set role postgres",
    "alter system set fsync = off",
    "set log_min_messages = 'error'",
    "select rolpassword from pg_authid",
    "select pg_read_file('/etc/passwd')",
    "copy pessoas to program 'id'",
    "copy pessoas to '/tmp/other'",
  ];

  await check("with the rights of an instance one can read and add persons, and nothing else", async () => {
    const person = await create();
    assert.deepEqual(await asInstance(["select count(*) from pessoas"]), ["done"]);
    const answers = await asInstance(refused);
    assert.deepEqual(
      refused.filter((_, i) => answers[i] !== "42501"),
      [],
      answers.join(),
    );
    for (const who of [
      { username: "postgres", database: "pessoas" },
      { username: "pessoas", database: "postgres" },
    ]) {
      assert.deepEqual(await asInstance(["select 1"], who), ["28000"]);
    }
    assert.equal(await sql("select usename from pg_user where usesuper"), "postgres");
    assert.deepEqual(await search(person.apelido), [person]);
  });

  await check("no log has values of a person, also when Postgres rejects a row", async () => {
    const insert = (id: string, nascimento: string) =>
      `insert into pessoas (id, nascimento, apelido, nome, busca) values ('${id}', '${nascimento}', 'secreto', 'secreto', 'secreto')`;
    const { id, ...person } = await create({ ...newPessoa(), nome: "secreto\nsecreto" });
    const answers = await asInstance([
      insert(id, "2000-01-01"),
      insert(crypto.randomUUID(), "secreto"),
      "select secreto",
    ]);
    assert.deepEqual(answers, ["23505", "22007", "42703"]);
    await isProblem(await post(person), 422);
    await isProblem(await post({ ...person, nascimento: "secreto" }), 422);
    await isProblem(await get(`/secreto%0a${id}`), 404);
    const logs = await compose("logs", "--no-log-prefix", ...services);
    assert.match(logs, /database system is ready to accept connections/);
    assert.match(logs, /"msg":"listening on /);
    assert.ok(![id, person.apelido, "secreto"].some((text) => logs.includes(text)), logs);
  });

  await check("init.sh brings the rights and the schema of an existing volume up to date", async () => {
    const person = await create();
    await sql("alter table pessoas owner to pessoas");
    await sql("drop index pessoas_busca");
    assert.deepEqual(await asInstance(["alter table pessoas alter nome set not null"]), ["done"]);
    await inside("db", "sh", "/docker-entrypoint-initdb.d/init.sh");
    assert.deepEqual(await asInstance(["alter table pessoas alter nome set not null"]), ["42501"]);
    assert.equal(await sql("select to_regclass('pessoas_busca')"), "pessoas_busca");
    await compose("restart", ...instances);
    await untilReady();
    for (const { id } of [person, await create()]) {
      assert.equal((await get(`/pessoas/${id}`)).status, 200);
    }
  });
}

async function contract() {
  await check("/docs and its files come through nginx", async () => {
    const document = (await (await get("/openapi.json")).json()) as { paths: object };
    assert.ok("/pessoas" in document.paths);
    const page = await get("/"); // redirects to /docs
    assert.equal(new URL(page.url).pathname, "/docs");
    const paths = [...(await page.text()).matchAll(/(?:src|href)="(\/[^"]+)"/g)].map(
      ([, path]) => path as string,
    );
    assert.equal(paths.length, 5);
    for (const path of paths) assert.equal((await get(path)).status, 200, path);
  });

  await check("201: the person, its Location, its search, and a count that is one more", async () => {
    const before = await count();
    const person = newPessoa();
    const response = await post(person);
    assert.equal(response.status, 201);
    const created = (await response.json()) as Found;
    assert.deepEqual(created, { ...person, id: created.id });
    assert.equal(response.headers.get("location"), `/pessoas/${created.id}`);
    const found = await get(`/pessoas/${created.id}`);
    assert.equal(found.status, 200);
    assert.deepEqual(await found.json(), created);
    assert.deepEqual(await search(person.apelido.toUpperCase()), [created]);
    assert.equal(await count(), before + 1);
  });

  for (const [status, when, body] of [
    [400, "the body is no JSON", "{"],
    [400, "nome is a number", { ...newPessoa(), nome: 1 }],
    [422, "apelido is missing", { ...newPessoa(), apelido: undefined }],
    [422, "nascimento is no day", { ...newPessoa(), nascimento: "2023-02-30" }],
    [413, "the body has 64 KiB and one byte more", " ".repeat(64 * 1024 + 1)],
  ] as const) {
    await check(`POST /pessoas: ${status} when ${when}`, async () => isProblem(await post(body), status));
  }

  await check("POST /pessoas: 422 when the apelido is taken, 415 when it is not JSON", async () => {
    const person = newPessoa();
    await create(person);
    for (const _ of instances) await isProblem(await post(person), 422);
    await isProblem(await post(newPessoa(), { "Content-Type": "text/plain" }), 415);
  });

  for (const [status, path] of [
    [400, "/pessoas"],
    [400, "/pessoas?t="],
    [400, "/pessoas?t=%FF"],
    [400, "/pessoas/"],
    [404, "/pessoas//"],
    [200, "/contagem-pessoas/"],
    [404, "/contagem-pessoas//"],
    [200, "/readyz/?x"],
    [404, "/pessoas/not-a-uuid"],
    [404, "/pessoas/not-a-uuid/"],
    [404, "/pessoas/%00"],
    [404, "/pessoas/%zz?x"],
    [400, "/pessoas?t=%zz"],
    [404, "/%zz"],
    [404, `/pessoas/${crypto.randomUUID()}`],
    [404, "/nothing"],
    [404, "/metrics"],
    [404, "/%6Detrics?x"],
  ] as const) {
    await check(`GET ${path}: ${status}`, async () => {
      const response = await get(path);
      if (status === 200) assert.equal(response.status, status);
      else await isProblem(response, status);
    });
  }

  for (const method of ["DELETE", "TRACE", "FOO"]) {
    await check(`${method} /pessoas: 405 with Allow`, async () => {
      const answer = await rawRequest(url, method, "/pessoas");
      assert.match(answer, /^HTTP\/1.1 405 /);
      assert.match(answer, /^Allow: GET, HEAD, POST\r$/m);
      assert.match(answer, isProblemType);
    });
  }

  await targetsAsTheyAre();

  await check("HEAD /contagem-pessoas: 200 without a body", async () => {
    const response = await request("/contagem-pessoas", { method: "HEAD" });
    assert.equal(response.status, 200);
    assert.equal(await response.text(), "");
  });

  // Answers of nginx itself.
  for (const [status, what, head] of [
    [400, "a request that is not HTTP", "what?\r\n"],
    [414, "a line of 9000 characters", `GET /${"x".repeat(9000)} HTTP/1.1\r\nHost: x\r\n`],
    [431, "a header of 9000 characters", `GET / HTTP/1.1\r\nHost: x\r\nX: ${"x".repeat(9000)}\r\n`],
    [413, "a chunk of 64 KiB and one byte more", chunked("x".repeat(64 * 1024 + 1))],
  ] as const) {
    await check(`${status} as problem details for ${what}`, async () => {
      const answer = await raw(url, `${head}\r\n`, /"status":/);
      assert.match(answer, new RegExp(`^HTTP/1.1 ${status} `));
      assert.match(answer, isProblemType);
      assert.equal(JSON.parse(answer.slice(answer.indexOf("\r\n\r\n"))).status, status);
    });
  }
}

async function targetsAsTheyAre() {
  const targets404 = String.raw`
    /.\metrics /x\..\metrics /x/../metrics /../metrics /./metrics /pessoas/..\metrics
    /%2e/metrics /x/%2E%2e/metrics /.%5cmetrics /%6detrics //metrics /metrics/ /metrics# /metrics\ /metrics;
    /pessoas/../metrics?t=a http://x/.\metrics http://x/metrics
    /\pessoas?t=a /%70essoas?t=a /pessoas#?t=a /./pessoas?t=a /pessoas/../pessoas?t=a`;
  for (const target of ["/met\trics", ...targets404.trim().split(/\s+/)]) {
    await check(`GET ${JSON.stringify(target)}: 404`, async () => {
      assert.match(await rawRequest(url, "GET", target), notFound);
    });
  }

  await check("a target of any bytes gets the answer for its raw path", async () => {
    const property = fc.asyncProperty(
      fc.constantFrom("GET", "GET", "GET", "HEAD", "POST", "DELETE", "TRACE"),
      targets,
      async (method, target) => {
        abandoned.signal.throwIfAborted();
        const answer = await rawRequest(url, method, target);
        const status = Number(/^HTTP\/1\.1 (\d+) /.exec(answer)?.[1]);
        assert.ok(statusesOf(method, target).includes(status), answer.slice(0, 1000));
        if (status >= 400) assert.match(answer, isProblemType);
        assert.doesNotMatch(answer, /pessoas_http_request/);
      },
    );
    await fc.assert(property, { numRuns: 3000 });
  });

  await check("GET /pessoas?t= with raw bytes: found if they are UTF-8, else 400", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ ...newPessoa(), nome: `${mark} é🦜\ufffd \\..%#` });
    const found = async (query: string) => {
      const answer = await rawRequest(url, "GET", `/pessoas?${query}`);
      assert.match(answer, /^HTTP\/1\.1 200 /);
      return JSON.parse(
        Buffer.from(answer.slice(answer.indexOf("\r\n\r\n")), "latin1").toString(),
      ) as unknown;
    };
    const bytes = (text: string) => Buffer.from(text).toString("latin1");
    for (const term of [
      ...[`${mark}+é🦜\ufffd`, "%EF%BF%BD+\\..%25#", "\ufffd"].map(bytes),
      ...[`${mark}&x=\xff`, bytes(`${mark}+é`), `${mark}%20%c3%a9`],
    ]) {
      assert.deepEqual(await found(`t=${term}`), [person], term);
    }
    assert.deepEqual(await found(`t=${bytes("é").repeat(3500)}`), []);
    const ofInstance = await get("/pessoas?t=%FF");
    const type = ofInstance.headers.get("content-type");
    const body = await ofInstance.text();
    const invalid = "\xff a\xc3 \xc3&x=1 \xc0\xaf \xed\xa0\x80 \xf5\x80\x80\x80".split(" ");
    for (const term of [...invalid, `${"a".repeat(7000)}\xa0`]) {
      const answer = await rawRequest(url, "GET", `/pessoas?x=y&t=${term}`);
      assert.match(answer, /^HTTP\/1\.1 400 /, term);
      assert.ok(answer.includes(`Content-Type: ${type}\r\n`), answer);
      assert.ok(answer.endsWith(`\r\n\r\n${body}`), answer);
    }
  });
}

/** A second nginx on another port, in front of the same instances, and its log. */
async function anotherNginx(
  env: Record<string, string>,
  body: (url: string, log: () => Promise<string>) => Promise<void>,
) {
  const all = { PORT: String(freePort()), ...env };
  const given = Object.entries(all).flatMap(([name, value]) => ["--env", `${name}=${value}`]);
  const id = (await compose("run", "--detach", "--no-deps", ...given, "nginx")).split("\n").at(-1) as string;
  const log = async () =>
    (await docker("inspect", "--format", "{{.State.Status}}", id)) + (await docker("logs", id));
  try {
    const there = `http://127.0.0.1:${all.PORT}`;
    while ((await fetch(`${there}/readyz`).catch(() => undefined))?.status !== 200) {
      abandoned.signal.throwIfAborted();
      assert.match(await log(), /^running/);
    }
    await body(there, log);
  } finally {
    await docker("rm", "--force", id);
  }
}

async function metrics() {
  await check(
    "/api1/metrics and /api2/metrics are those of each instance, on a port of this host alone",
    async () => {
      for (const instance of instances) {
        const response = await fetch(`${metricsUrl}/${instance}/metrics`);
        assert.equal(response.status, 200);
        const text = await response.text();
        assert.match(text, /^pessoas_cache_entries \d+$/m);
        const before = await answered(instance);
        await (await fetch(`${metricsUrl}/${instance}/metrics`)).text();
        assert.ok((await answered(instance)) >= before + 2);
      }
    },
  );

  const others = String.raw`
    / /metrics /api1 /api1/ /api1/metrics/ /api3/metrics /API1/metrics /api1//metrics /api1/metrics?x
    /api1/../api1/metrics /api1\metrics /%61pi1/metrics /pessoas?t=a /readyz /contagem-pessoas /problem`;
  for (const target of others.trim().split(/\s+/)) {
    await check(`GET ${target} on the port for metrics: 404`, async () => {
      assert.match(await rawRequest(metricsUrl, "GET", target), notFound);
    });
  }

  await check("a METRICS_PORT in use disables the metrics alone, and the log says so", async () => {
    const holder = Bun.listen({ hostname: "127.0.0.1", port: 0, socket: { data() {} } });
    const [taken, own] = [String(holder.port), String(freePort())];
    try {
      for (const env of [{ METRICS_PORT: taken }, { PORT: own, METRICS_PORT: own }]) {
        await anotherNginx(env, async (there, log) => {
          assert.equal((await fetch(`${there}/contagem-pessoas`)).status, 200);
          assert.equal((await fetch(`${there}/api1/metrics`)).status, 404);
          assert.match(await log(), new RegExp(`METRICS_PORT: port ${env.METRICS_PORT} is in use`));
        });
      }
    } finally {
      holder.stop(true);
    }
    await anotherNginx({ METRICS_PORT: String(freePort()) }, async (_, log) => {
      assert.doesNotMatch(await log(), /METRICS_PORT/);
    });
  });

  const scraped = "a Prometheus with docs/prometheus.yml scrapes both instances";
  if (Bun.which("prometheus") === null) console.log(`skip  ${scraped}: prometheus is not installed`);
  else await check(scraped, scrape);
}

async function scrape() {
  const given = join(import.meta.dir, "..", "..", "docs", "prometheus.yml");
  const checked = Bun.spawnSync(["promtool", "check", "config", given]);
  assert.equal(checked.exitCode, 0, String(checked.stderr));
  await using folder = await temporaryFolder();
  const config = join(folder.path, "prometheus.yml");
  const text = await Bun.file(given).text();
  assert.match(text, /"127\.0\.0\.1:9997"/);
  await Bun.write(
    config,
    text.replaceAll("127.0.0.1:9997", new URL(metricsUrl).host).replace("interval: 15s", "interval: 1s"),
  );
  const address = `127.0.0.1:${freePort()}`;
  const options = `--config.file ${config} --storage.tsdb.path ${folder.path} --web.listen-address ${address}`;
  const prometheus = Bun.spawn(["prometheus", ...options.split(" ")], { stdout: "ignore", stderr: "ignore" });
  const values = async (query: string) => {
    const answer = await fetch(`http://${address}/api/v1/query?query=${query}`).catch(() => undefined);
    if (!answer?.ok) return []; // it is still starting
    type Result = { metric: { instance: string }; value: [number, string] }[];
    const { data } = (await answer.json()) as { data: { result: Result } };
    return data.result.map(({ metric, value }) => `${metric.instance} ${value[1]}`).sort();
  };
  try {
    const both = ["api1 1", "api2 1"];
    while (!Bun.deepEquals(await values("up"), both)) {
      abandoned.signal.throwIfAborted();
      assert.equal(prometheus.exitCode, null);
      await Bun.sleep(50);
    }
    assert.deepEqual(await values("pessoas_cache_entries>=bool+0"), both);
  } finally {
    prometheus.kill();
    await prometheus.exited;
  }
}

async function noRequests() {
  await Promise.all(
    shapes.map(([what, status, bytes]) =>
      check(`${what}: rejected with one answer, and the connection is closed`, async () => {
        const answer = await raw(url, Buffer.from(bytes, "latin1"));
        const statuses = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, code]) => code);
        assert.equal(statuses.length, 1, answer);
        assert.match(statuses[0] as string, status);
        assert.match(answer, isProblemType);
      }),
    ),
  );
}

function chunked(chunk: string): string {
  const head = "POST /pessoas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  return `${head}${chunk.length.toString(16)}\r\n${chunk}\r\n0\r\n`;
}

async function twoInstances() {
  await check("of 50 racing creates of one apelido one gets 201, all others 422", async () => {
    for (let round = 0; round < 5; round++) {
      const person = newPessoa();
      const answers = await Promise.all(Array.from({ length: 50 }, () => anew.post(person)));
      const statuses = answers.map(({ status }) => status).sort();
      assert.deepEqual(statuses, [201, ...new Array(49).fill(422)]);
      assert.equal((await search(person.apelido)).length, 1);
    }
  });

  await check("a person is readable, found and counted through either instance at once", async () => {
    const parted = await shares(async () => {
      for (let round = 0; round < 20; round++) {
        const before = await count();
        const person = await create();
        // 26 new connections reach both instances.
        const checks = Array.from({ length: 26 }, async () => {
          assert.equal((await anew.get(`/pessoas/${person.id}`)).status, 200);
          assert.deepEqual(await anew.search(person.apelido), [person]);
          assert.equal(await anew.count(), before + 1);
        });
        await Promise.all(checks);
      }
    });
    for (const share of parted) assert.ok(share > 500, `of 1600 requests: ${parted}`);
  });

  await check(
    "connections are distributed over the instances, and each connection stays with one instance",
    async () => {
      const thousand = async (init: RequestInit) => {
        for (let i = 0; i < 1000; i++) await (await request("/healthz", init)).text();
      };
      const parted = await shares(() => thousand({ headers: { Connection: "close" }, keepalive: false }));
      for (const share of parted) assert.ok(Math.abs(share - 500) < 50, `of 1000 connections: ${parted}`);
      const kept = await shares(() => thousand({}));
      // Not 0: the first nine requests may go to the other instance, and health checks pass through nginx, too.
      assert.ok(Math.min(...kept) < 20, `of 1000 requests on one connection: ${kept}`);
    },
  );
}

/** The number of requests that each instance answers during `work`. */
async function shares(work: () => Promise<void>): Promise<number[]> {
  const before = await Promise.all(instances.map(answered));
  await work();
  const after = await Promise.all(instances.map(answered));
  return after.map((now, i) => now - (before[i] as number));
}

async function outages() {
  for (const instance of instances) {
    await check(`restart ${instance} under load: no request is lost`, async () => {
      const { created, failures } = await underLoad(async () => {
        await compose("restart", instance);
        await shell(instance, 'until [ -S "$SOCKET" ]; do sleep 0.05; done');
      });
      assert.deepEqual(failures.slice(0, 3), []);
      assert.ok(created.length > 100, `only ${created.length} creates`);
    });
  }

  await check(
    "kill -9 of an instance: the other one answers, and it restarts despite its stale socket",
    async () => {
      await compose("kill", "api1");
      for (let i = 0; i < 20; i++) await create();
      await compose("start", "api1");
      await up();
      await create();
      // nginx sends 25 connections to one instance, the next 25 to the other.
      while ((await answered("api1")) === 0) {
        for (let i = 0; i < 8; i++) await anew.count();
      }
    },
  );

  await check(
    "kill -9 of Postgres under load: 503 with Retry-After, then every person with a 201 is there",
    async () => {
      let told: Response | undefined;
      const { created } = await underLoad(async () => {
        await compose("kill", "db");
        told = await get("/contagem-pessoas");
        await compose("start", "db");
        await untilReady();
      });
      await isProblem(told as Response, 503);
      assert.equal((told as Response).headers.get("retry-after"), "1");
      let stored = 0;
      for (let i = 0; i < created.length; i += 1000) {
        // the limit of a command's arguments
        const ids = created.slice(i, i + 1000).map((id) => `'${id}'`);
        stored += Number(await sql(`select count(*) from pessoas where id in (${ids})`));
      }
      assert.equal(stored, created.length);
    },
  );

  await check(
    "without any instance nginx answers 503 with Retry-After, until they have restarted",
    async () => {
      await compose("stop", ...instances);
      const response = await get("/contagem-pessoas");
      assert.equal(response.headers.get("retry-after"), "1");
      await isProblem(response, 503);
      await compose("start", ...instances);
      await untilReady();
    },
  );
}

async function data() {
  const backup = "a restored backup has every person unchanged, and the instances have no further rights";
  if ((await shell("db", "command -v pg_dump || true")) === "") {
    console.log(`skip  ${backup}: this image of Postgres has no pg_dump`);
  } else {
    await check(backup, async () => {
      const person = await create();
      const before = await count();
      await shell("db", "pg_dump -U postgres -Fc pessoas >/tmp/pessoas.dump");
      const later = await create();
      await compose("stop", ...instances);
      const options = "--clean --if-exists --no-owner --single-transaction";
      await shell("db", `pg_restore -U postgres -d pessoas ${options} </tmp/pessoas.dump`);
      await compose("start", ...instances);
      await untilReady();
      assert.equal(await count(), before);
      assert.deepEqual(await (await get(`/pessoas/${person.id}`)).json(), person);
      await isProblem(await get(`/pessoas/${later.id}`), 404);
      await isProblem(await post(person), 422);
      assert.deepEqual(await asInstance(["drop table pessoas", "delete from pessoas"]), ["42501", "42501"]);
    });
  }

  await check("down and up keep the data, and Postgres has more buffers for more data", async () => {
    const person = await create();
    const before = await count();
    assert.equal(await sql("show shared_buffers"), "18MB");
    await shell("db", 'head -c 201M /dev/zero >"$PGDATA/base/much"');
    await compose("down");
    await up();
    assert.equal(await sql("show shared_buffers"), "320MB");
    assert.equal(await count(), before);
    assert.deepEqual(await (await get(`/pessoas/${person.id}`)).json(), person);
  });

  await check("down -v removes everything", async () => {
    await compose("down", "--volumes");
    assert.equal(await leftovers(), "");
  });
}

// A time limit; a run takes little more than a minute.
const tooLong = setTimeout(() => abandoned.abort(new Error("given up after 10 minutes")), 600_000);

const tiny = ["stress-test/limits-0.5.yml"];
for (const [name, overrides, cpu, memoryBytes] of [
  ["1.5 CPU and 3 GB", [], 1.5, 3e9],
  ["0.5 CPU and 256 MiB with stress-test/limits-0.5.yml", tiny, 0.5, 256 * 2 ** 20],
  [
    "0.35 CPU with stress-test/limits-0.35.yml, too",
    [...tiny, "stress-test/limits-0.35.yml"],
    0.35,
    256 * 2 ** 20,
  ],
] as const) {
  await check(`the limits sum to at most ${name}`, async () => {
    const all = await limits(...overrides);
    assert.ok(all.reduce((sum, { cpus }) => sum + cpus, 0) <= cpu + 1e-9);
    assert.ok(all.reduce((sum, { memory }) => sum + memory, 0) <= memoryBytes);
  });
}
let isUp = false;
await check(`docker compose up -d --build --wait: ready at ${url}`, async () => {
  await up();
  isUp = true;
});
if (isUp) {
  for (const part of [containers, roles, contract, metrics, noRequests, twoInstances, outages, data]) {
    if (!abandoned.signal.aborted) await part();
  }
} else if (!abandoned.signal.aborted) {
  console.log(await compose("logs", "--tail", "20"));
}
clearTimeout(tooLong);
await remove();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && !abandoned.signal.aborted ? 0 : 1);
