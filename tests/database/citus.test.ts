import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { idOf } from "../../contract/pessoa.ts";
import { storedColumns } from "../../database/inserts.ts";
import { rowOf } from "../../db.ts";
import schema from "../../schema.sql" with { type: "text" };
import { searchableInBulk, shortStatement, textStatement } from "../../search/search.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { connect, query, type Registry, serve, startLoops, until } from "../helpers/support.ts";

// An empty database on the coordinator of a real cluster, as a superuser; docs/scaling.md says how to start a cluster.
const coordinator = process.env.CITUS_URL ?? "";
const title = coordinator ? "on Citus" : "on Citus (skipped: CITUS_URL does not name a coordinator)";
// A worker to add to the cluster, as host:port.
const spare = process.env.CITUS_SPARE ?? "";
const spareTitle = spare ? "" : " (skipped: CITUS_SPARE does not name a worker)";
// A shell command that kills a worker, restarts it and ends when it answers; and the number of crashes.
const crash = process.env.CITUS_CRASH ?? "";
const crashes = Number(process.env.CITUS_CRASHES ?? 3);
const crashTitle = crash ? "" : " (skipped: CITUS_CRASH is not set)";
// As in docs/scaling.md.
const splits = `select format('select citus_split_shard_by_split_points(%s, array[%L, %L], array[%s, %s, %s], %L)',
    shardid, lo + (hi - lo) / 3, lo + (hi - lo) * 2 / 3, nodeid, nodeid, nodeid, 'block_writes') as split
  from (select shardid, shardminvalue::bigint as lo, shardmaxvalue::bigint as hi, nodeid
    from pg_dist_shard join pg_dist_shard_placement using (shardid) join pg_dist_node using (nodename, nodeport)
    where logicalrelid = 'pessoas'::regclass) as shards`;
const rebalance = [
  "select citus_rebalance_start(shard_transfer_mode := 'force_logical')",
  "select citus_rebalance_wait()",
];
const longMs = 600_000;

/** Creates persons until stop(); each answer must be 201 or 503. */
function keepCreating(through: () => Registry[], loops = 16) {
  const created: Found[] = [];
  const statuses: number[] = [];
  const loop = startLoops(loops, async (n) => {
    const instances = through();
    const person = { ...newPessoa(), stack: null };
    const { status } = await (instances[n % instances.length] as Registry).post(person);
    statuses.push(status);
    if (status === 201) created.push(found(person));
    else expect(status).toBe(503);
  });
  return { created, statuses, stop: () => loop.stop().then(() => created) };
}

/** The person as a search returns it. */
const found = (person: ReturnType<typeof newPessoa>) => ({ id: idOf(person.apelido), ...person }) as Found;

/** The values of an insert that stores the person. `maxInMemory`: persons in memory at most. */
function valuesOf(person: Found, maxInMemory: number): string {
  const { values } = rowOf(person, searchableInBulk([], maxInMemory));
  return values.map((text) => (text === null ? "null" : `'${text.replaceAll("'", "''")}'`)).join();
}

describe.skipIf(!coordinator)(title, () => {
  let one: Registry;
  let other: Registry;
  const early = Array.from({ length: 50 }, () => ({ ...newPessoa(), stack: ["Cedo", 'C"#\\'] }));
  const stored = early.map(found);

  beforeAll(async () => {
    const [held] = await query(coordinator, "select to_regclass('pessoas') is not null as held");
    if (held?.held && (await query(coordinator, "select from pessoas limit 1")).length > 0) {
      throw new Error("CITUS_URL: expected an empty database, because the tests remove its persons");
    }
    // A table from before Citus, with persons.
    const plain = schema.slice(0, schema.lastIndexOf("do $$", schema.indexOf("create_distributed_table")));
    const rows = stored.map((person) => `(${valuesOf(person, Number.POSITIVE_INFINITY)})`);
    await query(coordinator, "drop table if exists pessoas, short_terms");
    await query(coordinator, plain);
    await query(coordinator, `insert into pessoas (${storedColumns}) values ${rows.join()}`);
    [one, other] = await Promise.all([start(), start()]);
  });

  afterAll(async () => {
    await Promise.all([one?.stop(), other?.stop()]);
    await query(coordinator, "drop table if exists pessoas, short_terms");
  });

  const start = () => serve({ DATABASE_URL: coordinator, DB_TIMEOUT_MS: "10000" });

  async function read(registry: Registry, id: string) {
    const response = await registry.get(`/pessoas/${id}`);
    return response.status === 200 ? ((await response.json()) as Found) : response.status;
  }

  const parts = () =>
    query(
      coordinator,
      `select (select count(*)::int from pg_dist_node where isactive and shouldhaveshards and noderole = 'primary') as workers,
        (select count(*)::int from pg_dist_shard where logicalrelid = 'pessoas'::regclass) as shards,
        (select count(*)::int from pg_dist_partition where logicalrelid = 'pessoas'::regclass) as distributed`,
    );

  test("two instances that start at once distribute the table once, a shard per worker, and keep every person", async () => {
    const [row] = await parts();
    expect(row).toMatchObject({ distributed: 1, shards: row?.workers });
    expect(await one.count()).toBe(early.length);
    for (const person of stored.slice(0, 5)) expect(await read(other, person.id)).toEqual(person);
    expect(await other.search("cedo")).toHaveLength(early.length);
  });

  test("a restart changes nothing", async () => {
    const before = await parts();
    const again = await start();
    expect(await parts()).toEqual(before);
    await again.stop();
  });

  test("a read by id goes to one shard", async () => {
    const plan = await query(coordinator, `explain select * from pessoas where id = '${stored[0]?.id}'`);
    expect(plan.map((line) => line["QUERY PLAN"]).join("\n")).toContain("Task Count: 1");
  });

  test("of many creates of one apelido on two instances exactly one gets 201", async () => {
    const person = newPessoa();
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, i) => (i % 2 ? one : other).post(person)),
    );
    const statuses = answers.map(({ status }) => status);
    expect([statuses.filter((status) => status === 201).length, statuses.length]).toEqual([1, 100]);
    expect(statuses.filter((status) => status === 422)).toHaveLength(99);
  });

  test("overlapping batches of two instances store each person once, and all are read, found and counted", async () => {
    const before = await one.count();
    const persons = Array.from({ length: 500 }, () => newPessoa());
    const sent = [
      ...persons.map((person) => one.post(person)),
      ...persons.toReversed().map((person) => other.post(person)),
    ];
    const statuses = (await Promise.all(sent)).map(({ status }) => status);
    expect(statuses.filter((status) => status === 201)).toHaveLength(persons.length);
    expect(statuses.filter((status) => status === 422)).toHaveLength(persons.length);
    expect(await Promise.all([one.count(), other.count()])).toEqual([before + 500, before + 500]);
    await using cold = await start(); // with an empty cache
    const read50 = persons.slice(0, 50).map(found);
    expect(await Promise.all(read50.map(({ id }) => read(cold, id)))).toEqual(read50);
    for (const person of read50.slice(0, 20)) expect(await cold.search(person.apelido)).toEqual([person]);
    expect(await cold.search("pessoa")).toHaveLength(50);
    expect(await cold.search("%_nobody")).toEqual([]);
    expect(await read(cold, crypto.randomUUID())).toBe(404);
  });

  test("a search finds what a scan of all persons finds", async () => {
    const parts = ["Ana", "béa", "c++", "50%", "o'x", "жя", "\u{1f600}", "_a", "\\\\", "ß", "ana", "zé"];
    const pick = (i: number) => parts[(i * 7 + (i >> 2)) % parts.length] as string;
    const persons = Array.from({ length: 150 }, (_, i) => ({
      ...newPessoa(),
      nome: `Busca ${pick(i)}${pick(i + 1)} ${i}`,
      stack: i % 3 ? [pick(i + 5), `${pick(i + 2)}${i}`] : null,
    }));
    const created = await Promise.all(persons.map((person, i) => (i % 2 ? one : other).post(person)));
    expect(created.every(({ status }) => status === 201)).toBe(true);
    const all = (await query(coordinator, "select apelido, nome, stack from pessoas")) as unknown as Found[];
    const holding = (term: string) =>
      all.filter(({ apelido, nome, stack }) =>
        [apelido, nome, ...(stack ?? [])].some((field) => field.toLowerCase().includes(term.toLowerCase())),
      );
    const terms = new Set(parts);
    for (const { apelido, nome } of persons.slice(0, 60)) {
      for (const length of [1, 2, 3, 6]) terms.add([...nome].slice(6, 6 + length).join(""));
      terms.add(apelido.slice(2, 8));
    }
    for (const term of terms) {
      const right = new Set(holding(term).map(({ apelido }) => apelido));
      const names = (await one.search(term)).map(({ apelido }) => apelido);
      expect([term, new Set(names).size]).toEqual([term, Math.min(right.size, 50)]);
      expect(names.filter((apelido) => !right.has(apelido))).toEqual([]);
    }
  });

  test("each search is one statement on each shard, which stops at 50", async () => {
    for (const statement of [textStatement, shortStatement]) {
      const text = statement.replace("$1::text", "'ana'").replace("$1", "'an'").replace("$2", "'%ana%'");
      const plan = await query(coordinator, `explain (verbose, costs off) ${text}`);
      const lines = plan.map((line) => String(line["QUERY PLAN"])).join("\n");
      expect(lines).not.toContain("Subplan");
      expect(lines).toMatch(/Query: SELECT .* LIMIT '50'/);
    }
  });

  test("any role that may insert merges the pending lists of all shards", async () => {
    const role = `r${crypto.randomUUID().replaceAll("-", "")}`;
    await query(coordinator, `create role ${role} login`);
    await using sql = connect(coordinator);
    const merge = async () =>
      Number((await sql.unsafe<{ pages: string }[]>("select merge_pending_list() as pages"))[0]?.pages);
    await sql.unsafe(`grant insert, select on pessoas to ${role}; set role ${role}`);
    // An instance may merge first.
    await until(async () => {
      await sql.unsafe(`insert into pessoas (id, nascimento, apelido, nome, busca)
        select gen_random_uuid(), '2000-01-01', 'm' || i, 'm', repeat('mesclar ' || i, 40) from generate_series(1, 200) as i`);
      return (await merge()) > 0;
    });
    expect(await merge()).toBe(0);
    await sql.unsafe("reset role; delete from pessoas where nome = 'm'");
    for (const text of [`drop owned by ${role}`, `drop role ${role}`]) await query(coordinator, text);
  });

  describe("a prepared transaction on a worker", () => {
    const gid = `t${crypto.randomUUID()}`;

    /** Prepares a transaction that inserts `person` on its worker. */
    async function prepare(person: Found, name: string) {
      const [place] = await query(
        coordinator,
        `select nodename, nodeport, 'pessoas_' || shardid as shard, groupid
         from pg_dist_placement join pg_dist_node using (groupid)
         where shardid = get_shard_id_for_distribution_column('pessoas', '${person.id}'::uuid)`,
      );
      const url = new URL(coordinator);
      url.hostname = String(place?.nodename);
      url.port = String(place?.nodeport);
      const values = valuesOf(person, 0);
      await query(
        url.href,
        `set citus.enable_manual_changes_to_shards = on; begin;
         insert into ${place?.shard} (${storedColumns}) values (${values}); prepare transaction '${name}'`,
      );
      return { worker: url.href, group: Number(place?.groupid) };
    }

    test("delays no create of another person, even if its person is sent repeatedly", async () => {
      const person = found(newPessoa());
      const { worker } = await prepare(person, gid);
      for (let round = 0; round < 3; round++) {
        const neighbours = Array.from({ length: 60 }, () => newPessoa());
        const sent = [neighbours[0], person, ...neighbours.slice(1)].map((each) => one.post(each));
        const statuses = (await Promise.all(sent)).map(({ status }) => status);
        expect(statuses.filter((status) => status === 201)).toHaveLength(neighbours.length);
        expect(statuses.filter((status) => status === 503)).toHaveLength(1);
        expect((await one.get("/readyz")).status).toBe(200);
      }
      await query(worker, `rollback prepared '${gid}'`);
      expect((await one.post(person)).status).toBe(201);
      expect(await read(other, person.id)).toEqual(person);
    });

    test("is committed soon after its coordinator has committed", async () => {
      const [setting] = await query(
        coordinator,
        "select current_setting('citus.recover_2pc_interval') as interval",
      );
      expect(setting?.interval).toBe("1s");
      const person = found(newPessoa());
      expect(await read(other, person.id)).toBe(404);
      while ((await read(other, person.id)) === 404) {
        const name = `citus_0_1_${Date.now()}_1`;
        const { worker, group } = await prepare(person, name);
        await query(
          coordinator,
          `insert into pg_dist_transaction (groupid, gid) values (${group}, '${name}')`,
        );
        // Citus commits it, or rolled it back before the insert of the record.
        const prepared = `select from pg_prepared_xacts where gid = '${name}'`;
        while ((await query(worker, prepared)).length > 0) await Bun.sleep(20);
      }
      expect(await read(one, person.id)).toEqual(person);
      expect((await one.post(person)).status).toBe(422);
    });
  });

  test.skipIf(!crash)(
    `a person with a 201 is read and found on the other instance after each of ${crashes} crashes of a worker${crashTitle}`,
    async () => {
      for (let round = 0; round < crashes; round++) {
        const { created, stop } = keepCreating(() => [one], 32);
        await until(() => created.length >= 200);
        const { exitCode } = Bun.spawnSync(["sh", "-c", crash]);
        expect(exitCode).toBe(0);
        await until(async () => (await other.get("/readyz")).status === 200);
        const back = performance.now();
        await stop();
        const missing = async () => {
          const there = await query(coordinator, "select id from pessoas");
          const ids = new Set(there.map(({ id }) => id));
          return created.filter(({ id }) => !ids.has(id)).length;
        };
        const first = await missing();
        await until(async () => (await missing()) === 0);
        const ms = Math.round(performance.now() - back);
        for (const person of created.filter((_, i) => i % 20 === 0)) {
          expect(await read(other, person.id)).toEqual(person);
          expect(await other.search(person.apelido)).toEqual([person]);
        }
        console.log(
          `crash ${round + 1}: ${created.length} created, ${first} of them missing at first, ${ms} ms`,
        );
      }
    },
    longMs,
  );
});

describe.skipIf(!coordinator)(`${title}, in a database of its own`, () => {
  let nodes: { nodename: string; nodeport: number }[];
  const name = `t${crypto.randomUUID().replaceAll("-", "")}`;
  const on = ({ nodename, nodeport }: { nodename: string; nodeport: number }, database: string) => {
    const url = new URL(coordinator);
    url.host = `${nodename}:${nodeport}`;
    url.pathname = `/${database}`;
    return url.href;
  };
  const base = coordinator && new URL(coordinator).pathname.slice(1);
  const added = spare ? [{ nodename: spare.replace(/:\d+$/, ""), nodeport: Number(/\d+$/.exec(spare)) }] : [];
  const here = coordinator && Object.assign(new URL(coordinator), { pathname: `/${name}` }).href;

  beforeAll(async () => {
    nodes = (await query(
      coordinator,
      "select nodename, nodeport from pg_dist_node where groupid > 0",
    )) as unknown as typeof nodes;
    await query(coordinator, `create database ${name}`);
    for (const node of [...nodes, ...added]) {
      await query(on(node, base), `create database ${name}`);
      await query(on(node, name), "create extension citus");
    }
  });

  afterAll(async () => {
    // Its maintenance daemon comes back until the extension is gone.
    for (const url of [here, ...[...nodes, ...added].map((node) => on(node, name))]) {
      await query(url, "drop extension citus cascade");
    }
    for (const url of [coordinator, ...[...nodes, ...added].map((node) => on(node, base))]) {
      await query(url, `drop database ${name} with (force)`);
    }
  });

  async function expectThere(registry: Registry, created: Found[]) {
    const missing = new Set(created.map(({ id }) => id));
    for (const { id } of await query(here, "select id from pessoas")) missing.delete(id);
    expect(missing).toEqual(new Set());
    const every = Math.ceil(created.length / 100);
    for (const person of created.filter((_, i) => i % every === 0)) {
      expect(await (await registry.get(`/pessoas/${person.id}`)).json()).toEqual(person);
      expect(await registry.search(person.apelido)).toEqual([person]);
    }
  }

  test(
    "a plain database becomes a cluster during creates, and every person is read, found and counted",
    async () => {
      const serveHere = () => serve({ DATABASE_URL: here });
      const old = await serveHere();
      let instances = [old];
      const load = keepCreating(() => instances);
      await until(() => load.created.length >= 2000);
      await query(here, "create extension citus");
      await query(
        here,
        `select citus_set_coordinator_host('${new URL(coordinator).hostname}', ${new URL(coordinator).port || 5432})`,
      );
      for (const { nodename, nodeport } of nodes)
        await query(here, `select citus_add_node('${nodename}', ${nodeport})`);
      const fresh = await serveHere();
      await until(async () => (await fresh.get("/readyz")).status === 200);
      await until(async () => (await query(here, "select from pg_dist_partition")).length === 2);
      instances = [old, fresh];
      const before = load.created.length;
      await until(() => load.created.length >= before + 500);
      const search = await old.get(`/pessoas?t=${load.created.at(-1)?.apelido}`);
      expect([search.status, await search.text()]).toEqual([503, expect.stringContaining("restart")]);
      const created = await load.stop();
      const restarted = await serveHere();
      for (const each of [fresh, restarted]) {
        expect(await each.count()).toBe(created.length);
        await expectThere(each, created);
      }
      expect(await query(here, "select from pessoas where busca is null")).toBeEmpty();
      await Promise.all([old, fresh, restarted].map(({ stop }) => stop()));
    },
    longMs,
  );

  test.skipIf(!spare)(
    `another worker is added during creates, and no create fails${spareTitle}`,
    async () => {
      const [one, other] = await Promise.all([1, 2].map(() => serve({ DATABASE_URL: here })));
      const load = keepCreating(() => [one as Registry, other as Registry]);
      await until(() => load.created.length >= 1000);
      for (const { nodename, nodeport } of added)
        await query(here, `select citus_add_node('${nodename}', ${nodeport})`);
      const before = load.created.length;
      for (const { split } of await query(here, splits)) await query(here, split);
      for (const text of rebalance) await query(here, text);
      await until(() => load.created.length >= before + 500);
      const created = await load.stop();
      expect(load.statuses.filter((status) => status !== 201)).toEqual([]);
      await expectThere(other as Registry, created);
      const [placed] = await query(
        here,
        `select count(*)::int as n from citus_shards where nodeport = ${added[0]?.nodeport} and nodename = '${added[0]?.nodename}'`,
      );
      expect(placed?.n).toBe(4); // two shards of each table
      await Promise.all([one?.stop(), other?.stop()]);
    },
    longMs,
  );
});

test("without Citus the schema can be applied repeatedly", async () => {
  await using registry = await serve();
  const plain = await query(registry.databaseUrl, "select from pg_extension where extname = 'citus'");
  expect(plain).toBeEmpty();
  await query(registry.databaseUrl, schema);
  expect((await registry.post(newPessoa())).status).toBe(201);
  await query(registry.databaseUrl, schema);
  expect(await registry.count()).toBe(1);
});

test.each(["08006", "57P03", "40P01"])(
  "an unreachable worker (%s) gives 503, nothing is stored, and a retry succeeds",
  async (code) => {
    await using registry = await serve();
    await query(
      registry.databaseUrl,
      `create function away() returns trigger language plpgsql as $$ begin raise sqlstate '${code}'; end $$;
       create trigger away before insert on pessoas execute function away()`,
    );
    const person = newPessoa();
    const refused = await registry.post(person);
    expect([refused.status, refused.headers.get("retry-after")]).toEqual([503, "1"]);
    expect(await registry.count()).toBe(0);
    await query(registry.databaseUrl, "drop trigger away on pessoas");
    expect((await registry.post(person)).status).toBe(201);
  },
);
