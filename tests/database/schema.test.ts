import { expect, test } from "bun:test";
import schema from "../../schema.sql" with { type: "text" };
import { newPessoa } from "../helpers/requests.ts";
import { newDatabase, query, serve } from "../helpers/support.ts";

test("a table pessoas without the schema version is refused, and left as it is", async () => {
  const url = await newDatabase();
  await query(
    url,
    `create table pessoas (id uuid primary key, nascimento date, apelido text, nome text, stack json, busca text, tx xid8);
     create table short_terms (term text, id uuid)`,
  );
  await expect(serve({ DATABASE_URL: url })).rejects.toThrow(
    "DATABASE_URL: the table pessoas is not of this server: it has no schema version; name another database or ?search_path=",
  );
  await expect(query(url, schema)).rejects.toThrow("the table pessoas does not have schema version 1");
  const tables = await query(url, "select relname from pg_class where relname in ('pessoas', 'short_terms')");
  expect(tables.map(({ relname }) => relname)).toHaveLength(2);
});

test("a table of a later schema version is refused, whoever owns it", async () => {
  const registry = await serve();
  await registry.stop();
  const url = new URL(registry.databaseUrl);
  const name = `r${crypto.randomUUID().replaceAll("-", "")}`;
  await query(
    url.href,
    `create role ${name} login password '${name}'; grant select, insert on pessoas, short_terms to ${name};
     comment on table pessoas is 'version 99'`,
  );
  const owner = url.href;
  url.username = url.password = name;
  for (const DATABASE_URL of [owner, url.href]) {
    await expect(serve({ DATABASE_URL })).rejects.toThrow(
      "DATABASE_URL: the table pessoas has schema version 99, which this server does not know; start a newer server",
    );
  }
});

// Citus itself is needed for what it does: tests/database/citus.test.ts.
test("where the catalog says Citus, persons of the memory get what the index needs, and new ones have it", async () => {
  const plain = await serve();
  const before = { ...newPessoa(), nome: "Antes жя" };
  expect((await plain.post(before)).status).toBe(201);
  await plain.stop();
  await query(
    plain.databaseUrl,
    `set allow_system_table_mods = on;
     insert into pg_extension select 4242, 'citus', extowner, extnamespace, false, '1', null, null from pg_extension limit 1;
     create table pg_dist_partition (logicalrelid regclass);
     create table pg_dist_node (isactive bool, shouldhaveshards bool, noderole text);
     create function truncate_local_data_after_distributing_table(of text) returns void language sql as '';
     create function create_distributed_table(of text, by text, shard_count int default 1, colocate_with text default '')
       returns void language sql as 'insert into pg_dist_partition values (of::regclass)'`,
  );
  const registry = await serve({ DATABASE_URL: plain.databaseUrl });
  const after = { ...newPessoa(), nome: "Depois юэ" };
  expect((await registry.post(after)).status).toBe(201);
  expect((await registry.post(after)).status).toBe(422);
  expect((await registry.get("/readyz")).status).toBe(200);
  for (const [term, person] of [
    ["antes", before],
    ["жя", before],
    ["я", before],
    ["depois", after],
    ["юэ", after],
  ] as const) {
    expect((await registry.search(term)).map(({ apelido }) => apelido)).toEqual([person.apelido]);
  }
  const forMemory = await query(plain.databaseUrl, "select from pessoas where busca is null");
  expect(forMemory).toBeEmpty();
  await expect(
    query(
      plain.databaseUrl,
      "insert into pessoas select gen_random_uuid(), tx, nascimento, 'a', 'a', null, null from pessoas",
    ),
  ).rejects.toThrow("violates not-null constraint"); // of an instance that was there before
  await registry.stop();
});
