import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { idOf } from "../contract/pessoa.ts";
import schema from "../schema.sql" with { type: "text" };
import { rowOf, storedColumns } from "../search/rows.ts";
import { searchableInBulk } from "../search/search.ts";
import { type Found, newPessoa, query, type Registry, serve } from "./support.ts";

// CITUS_URL names an empty database on the coordinator of a real cluster; docs/scaling.md says how to make one.
const coordinator = process.env.CITUS_URL ?? "";
const title = coordinator ? "on Citus" : "on Citus: skipped, for CITUS_URL does not name a coordinator";
const startupMs = 60_000;

describe.skipIf(!coordinator)(title, () => {
  let one: Registry;
  let other: Registry;
  const early = Array.from({ length: 50 }, () => ({ ...newPessoa(), stack: ["Cedo", 'C"#\\'] }));
  const stored = early.map((person) => ({ id: idOf(person.apelido), ...person }));

  beforeAll(async () => {
    const [held] = await query(coordinator, "select to_regclass('pessoas') is not null as held");
    if (held?.held && (await query(coordinator, "select from pessoas limit 1")).length > 0) {
      throw new Error("CITUS_URL: expected an empty database, for this removes the persons in it");
    }
    // A registry that was there before Citus: its table is a plain one, and holds persons.
    const [plain = ""] = schema.split(/^-- Citus/m);
    const cells = stored.map((person) =>
      rowOf(person, searchableInBulk(0)).values.map((text) =>
        text === null ? "null" : `'${text.replaceAll("'", "''")}'`,
      ),
    );
    await query(coordinator, "drop table if exists pessoas, short_terms");
    await query(coordinator, plain);
    await query(
      coordinator,
      `insert into pessoas (${storedColumns}) values ${cells.map((row) => `(${row})`).join()}`,
    );
    [one, other] = await Promise.all([start(), start()]);
  }, startupMs);

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

  test("two instances that start at once part the table once, a shard for each worker, and lose nobody", async () => {
    const [row] = await parts();
    expect(row).toMatchObject({ distributed: 1, shards: row?.workers });
    expect(await one.count()).toBe(early.length);
    for (const person of stored.slice(0, 5)) expect(await read(other, person.id)).toEqual(person as Found);
    expect(await other.search("cedo")).toHaveLength(early.length);
  });

  test("a restart changes nothing", async () => {
    const before = await parts();
    const again = await start();
    expect(await parts()).toEqual(before);
    await again.stop();
  });

  test("a read by id asks one shard", async () => {
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

  test(
    "overlapping batches of two instances store everybody once, and everybody is read, found and counted",
    async () => {
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
      const cold = await start(); // nobody is in its cache
      const read50 = persons.slice(0, 50).map((person) => ({ id: idOf(person.apelido), ...person }) as Found);
      expect(await Promise.all(read50.map(({ id }) => read(cold, id)))).toEqual(read50);
      for (const person of read50.slice(0, 20)) expect(await cold.search(person.apelido)).toEqual([person]);
      expect(await cold.search("pessoa")).toHaveLength(50);
      expect(await cold.search("%_nobody")).toEqual([]);
      expect(await read(cold, crypto.randomUUID())).toBe(404);
      await cold.stop();
    },
    startupMs,
  );
});

test("elsewhere than on Citus the schema is applied as it is, any number of times", async () => {
  const registry = await serve();
  const plain = await query(registry.databaseUrl, "select from pg_extension where extname = 'citus'");
  expect(plain).toBeEmpty();
  await query(registry.databaseUrl, schema);
  expect((await registry.post(newPessoa())).status).toBe(201);
  await query(registry.databaseUrl, schema);
  expect(await registry.count()).toBe(1);
  await registry.stop();
});

test.each(["08006", "57P03", "40P01"])(
  "what a coordinator says of a worker that is away (%s) is 503, nothing is stored, and a retry succeeds",
  async (code) => {
    const registry = await serve();
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
    await registry.stop();
  },
);
