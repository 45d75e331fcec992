import { expect, test } from "bun:test";
import { idOf } from "../../contract/pessoa.ts";
import { maxFound, maxPersonBytes } from "../../search/limits.ts";
import { startCluster } from "../helpers/cluster.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { connect, query, type Registry, serve, twins } from "../helpers/support.ts";

/** SQL that stores a person for the memory of the instances. */
const row = (apelido: string, nome = "-", tx = "default") =>
  `insert into pessoas (id, apelido, nome, nascimento, tx) values ('${idOf(apelido)}', '${apelido}', '${nome}', '2000-01-01', ${tx})`;
const names = async (registry: Registry, term: string) =>
  (await registry.search(term)).map(({ apelido }) => apelido).toSorted();

test("a person is found as soon as its transaction commits, in whatever order transactions began", async () => {
  await using it = await twins();
  const open = await Promise.all(
    ["cedo", "meio", "tarde"].map(async (apelido) => {
      const sql = connect(it.url);
      await sql.unsafe(`begin; ${row(apelido)}`);
      return { apelido, sql };
    }),
  );
  const committed: string[] = [];
  for (const { apelido, sql } of [open[2], open[0], open[1]] as typeof open) {
    for (let i = 0; i < 5; i++) {
      expect((await it.one.post(newPessoa())).status).toBe(201);
      for (const registry of it.both) {
        expect(await names(registry, apelido)).toEqual([]);
        expect(await names(registry, "-")).toHaveLength(
          await it.one.count(), // every apelido of newPessoa contains a hyphen
        );
      }
    }
    await sql.unsafe("commit");
    committed.push(apelido);
    for (const registry of it.both) expect(await names(registry, apelido)).toEqual([apelido]);
    await sql.end();
  }
  for (const registry of it.both) {
    for (const apelido of committed) expect(await names(registry, apelido)).toEqual([apelido]);
  }
});

test("a person whose transaction was rolled back is not found", async () => {
  await using it = await twins();
  await using sql = connect(it.url);
  await sql.unsafe(`begin; ${row("ninguem")}`);
  expect(await names(it.one, "ninguem")).toEqual([]);
  await sql.unsafe("rollback");
  for (const registry of it.both) expect(await names(registry, "ninguem")).toEqual([]);
});

test("a starting instance loads 12,000 persons of many transactions while another one stores more", async () => {
  await using it = await twins();
  await using sql = connect(it.url);
  for (let from = 0; from < 6000; from += 500) {
    await sql.unsafe(
      `insert into pessoas (id, apelido, nome, nascimento)
       select gen_random_uuid(), 'n' || n || 'x', 'muitos', '2000-01-01' from generate_series(${from}, ${from + 499}) n`,
    );
  }
  await sql.unsafe(
    `insert into pessoas (id, apelido, nome, nascimento)
     select gen_random_uuid(), 'n' || n || 'x', 'muitos', '2000-01-01' from generate_series(6000, 11999) n`,
  );
  const creating = (async () => {
    const made: Found[] = [];
    for (let i = 0; i < 50; i++) made.push(await it.one.create());
    return made;
  })();
  await using third = await serve({ DATABASE_URL: it.url });
  const early = await Promise.all([0, 5999, 6000, 11_999].map((n) => names(third, `n${n}x`)));
  expect(early).toEqual([["n0x"], ["n5999x"], ["n6000x"], ["n11999x"]]);
  for (const { apelido } of await creating) expect(await names(third, apelido)).toEqual([apelido]);
  for (let n = 0; n < 12_000; n += 371) {
    for (const registry of [it.one, third]) expect(await names(registry, `n${n}x`)).toEqual([`n${n}x`]);
  }
});

test("a restored row is found once, although its transaction id belongs to another server", async () => {
  await using it = await twins();
  const now = BigInt((await query(it.url, "select pg_current_xact_id()::text as tx"))[0]?.tx as string);
  const restored = [now - 5n, now + 20n, now + 40n, now + 1_000_000n, 2n ** 63n];
  await using sql = connect(it.url);
  for (const [i, tx] of restored.entries()) await sql.unsafe(row(`volta${i}`, "-", `'${tx}'`));
  const expected = restored.map((_, i) => `volta${i}`);
  await using after = await serve({ DATABASE_URL: it.url });
  expect(await names(after, "volta")).toEqual(expected);
  // Now this server's transactions get the ids of these rows.
  for (let i = 0; i < 60; i++) {
    expect((await after.post(newPessoa())).status).toBe(201);
    expect(await names(after, "volta")).toEqual(expected);
  }
});

test("an element counts once when its row is loaded twice, so later persons are still found by it", async () => {
  await using it = await twins();
  const now = BigInt((await query(it.url, "select pg_current_xact_id()::text as tx"))[0]?.tx as string);
  await using sql = connect(it.url);
  const restored = Array.from({ length: 30 }, (_, i) => `volta${i}`);
  for (const apelido of restored) await sql.unsafe(row(apelido, "-", `'${now + 40n}'`));
  await sql.unsafe(`update pessoas set stack = '["Raro"]'`);
  await using after = await serve({ DATABASE_URL: it.url });
  expect(await after.search("raro")).toHaveLength(30);
  for (let i = 0; i < 60; i++) await sql.unsafe("select pg_current_xact_id()");
  expect(await after.search("raro")).toHaveLength(30); // now the rows are loaded again
  for (let i = 0; i < 15; i++)
    expect((await it.one.post({ ...newPessoa(), stack: ["Raro"] })).status).toBe(201);
  expect(await after.search("raro")).toHaveLength(45);
});

test("persons are found although a crashed server reuses transaction ids", async () => {
  await using cluster = await startCluster();
  const both = await Promise.all([1, 2].map(() => serve({ DATABASE_URL: cluster.url })));
  const [one] = both as [Registry];
  expect((await one.post(newPessoa())).status).toBe(201);
  const pidOf = async (type: string) =>
    (
      await cluster.sql(
        `select pid from pg_stat_activity where backend_type = '${type}' and pid <> pg_backend_pid()`,
      )
    )[0]?.pid;
  const signal = (name: string, pid: number) => cluster.spawn(["sh", "-c", `kill -${name} ${pid}`]).exited;
  const walWriter = await pidOf("walwriter");
  const lost = await pidOf("client backend");
  await signal("STOP", walWriter); // the WAL of transactions that stored nothing is not flushed now
  const last = () => cluster.sql("select pg_snapshot_xmax(pg_current_snapshot())::text as tx");
  await cluster.sql(
    "do $$ begin for i in 1..100 loop perform pg_current_xact_id(); rollback; end loop; end $$",
  );
  for (const registry of both) expect(await registry.search("ninguem")).toEqual([]);
  const before = BigInt((await last())[0]?.tx);
  await signal("KILL", lost);
  // Else the WAL writer would flush before the server ends it.
  const answers = () =>
    cluster.sql("select").then(
      () => true,
      () => false,
    );
  while (await answers());
  await signal("CONT", walWriter);
  const isGone = () =>
    cluster.sql(`select from pg_stat_activity where pid = ${lost}`).then(
      (rows) => rows.length === 0,
      () => false, // it is in recovery
    );
  while (!(await isGone()));
  let created = newPessoa();
  while ((await one.post(created)).status !== 201) created = newPessoa();
  expect(BigInt((await last())[0]?.tx)).toBeLessThan(before);
  for (const registry of both) expect(await names(registry, created.apelido)).toEqual([created.apelido]);
  await Promise.all(both.map((registry) => registry.stop()));
});

test("after a truncate earlier persons are not found, and new ones are", async () => {
  await using it = await twins();
  await it.one.post({ ...newPessoa(), nome: "antiga" });
  for (const registry of it.both) expect(await registry.search("antiga")).toHaveLength(1);
  await query(it.url, "truncate pessoas, short_terms");
  for (const registry of it.both) expect(await registry.search("antiga")).toEqual([]);
  await query(it.url, row("nova", "nova"));
  for (const registry of it.both) expect(await names(registry, "nova")).toEqual(["nova"]);
});

test("searches right after a truncate and new inserts find the new rows", async () => {
  await using it = await twins();
  const many = (prefix: string) =>
    `insert into pessoas (id, apelido, nome, nascimento)
     select gen_random_uuid(), '${prefix}' || n, 'todos', '2000-01-01' from generate_series(1, ${maxFound}) n`;
  await query(it.url, many("velha"));
  for (const registry of it.both) expect(await registry.search("todos")).toHaveLength(maxFound);
  await query(it.url, `begin; truncate pessoas; ${many("nova")}; commit`);
  const found = await Promise.all(
    it.both.flatMap((registry) =>
      ["ninguem", "todos", "ninguem", "todos"].map((term) => registry.search(term)),
    ),
  );
  expect(found.map(({ length }) => length)).toEqual([0, maxFound, 0, maxFound, 0, maxFound, 0, maxFound]);
});

test("the memory holds each person once after many searches", async () => {
  await using it = await twins();
  for (let i = 0; i < 10; i++) {
    await it.one.post(newPessoa());
    await Promise.all(it.both.flatMap((registry) => [1, 2, 3].map(() => registry.search("x"))));
  }
  for (const registry of it.both) {
    const metrics = await (await registry.get("/metrics")).text();
    expect(metrics).toMatch(/^pessoas_memory_persons 10$/m);
    expect(metrics).toMatch(/^pessoas_memory_bytes [1-9]\d+$/m);
  }
});

test.each([
  ["", "-"],
  ["beside persons in the index ", "x".repeat(maxPersonBytes / 16)],
])("an updated row is found %sat its new place, and a deleted one is not found", async (_, element) => {
  await using it = await twins();
  expect((await it.one.post({ ...newPessoa(), stack: Array(32).fill(element) })).status).toBe(201);
  await query(it.url, [row("movida", "rara"), row("tirada", "rara"), row("parada", "rara")].join("; "));
  for (const registry of it.both)
    expect(await names(registry, "rara")).toEqual(["movida", "parada", "tirada"]);
  await query(it.url, "update pessoas set nascimento = '1999-01-01' where apelido = 'movida'");
  await query(it.url, "delete from pessoas where apelido = 'tirada'");
  await query(it.url, "vacuum pessoas");
  await query(it.url, row("nova", "outra")); // in the place of the deleted row
  for (const registry of [...it.both, ...it.both])
    expect(await names(registry, "rara")).toEqual(["movida", "parada"]);
});
