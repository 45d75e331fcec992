import { expect, test } from "bun:test";
import { idOf } from "../contract/pessoa.ts";
import schema from "../schema.sql" with { type: "text" };
import { type Found, newDatabase, newPessoa, query, serve } from "./support.ts";

/** A database as an earlier version left it: no short terms, and what is searched in plain lower case. */
async function earlierDatabase(persons: Found[]): Promise<string> {
  const url = await newDatabase();
  const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;
  const rows = persons.map(({ id, apelido, nome, nascimento, stack }) => {
    const busca = [apelido, nome, ...(stack ?? [])].join("\u0001").toLowerCase();
    return `(${[id, apelido, nome, nascimento].map(literal)}, ${stack ? literal(JSON.stringify(stack)) : "null"}, ${literal(busca)})`;
  });
  await query(
    url,
    `create extension pg_trgm;
     create table pessoas (id uuid primary key, nascimento date not null, apelido text not null, nome text not null,
       stack json, busca text not null);
     create index pessoas_busca on pessoas using gist (busca gist_trgm_ops (siglen = 256));
     create table trechos (id uuid not null, busca text not null);
     insert into pessoas (id, apelido, nome, nascimento, stack, busca) values ${rows}`,
  );
  return url;
}

test("persons of an earlier version are there, whole and found, however many instances start at once", async () => {
  const persons = Array.from({ length: 1200 }, (_, i) => {
    const person = { ...newPessoa(), stack: i % 3 ? ["C++", `+${i}+`] : null };
    return { id: idOf(person.apelido), ...person };
  });
  const elements = Array.from({ length: 600 }, (_, i) => `elemento ${i}`);
  const long = { id: idOf("longo"), ...newPessoa(), apelido: "longo", stack: elements };
  const url = await earlierDatabase([...persons, long]);
  const instances = await Promise.all([1, 2].map(() => serve({ DATABASE_URL: url })));
  for (const { count, search, get, post } of instances) {
    expect(await count()).toBe(persons.length + 1);
    const [first, second, third] = persons as [Found, Found, Found];
    for (const person of [first, second, third, long]) {
      expect(await (await get(`/pessoas/${person.id}`)).json()).toEqual(person);
      expect((await post(person)).status).toBe(422);
      expect(await search(person.apelido)).toEqual([person]);
    }
    expect(await search("+1+")).toEqual([second]);
    expect(await search("elemento 599")).toEqual([long]);
    expect(await search("c+")).toHaveLength(50);
    expect((await post(newPessoa())).status).toBe(201);
    persons.push(first); // one more
  }
  await Promise.all(instances.map(({ stop }) => stop()));
  const tables = await query(
    url,
    "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace",
  );
  expect(tables.map(({ relname }) => relname).sort()).toEqual(["curtos", "pessoas"]);
});

test("schema.sql alone changes nothing that is of an earlier version, and says who does", async () => {
  const url = await earlierDatabase([{ id: idOf("a"), ...newPessoa(), apelido: "a", stack: null }]);
  await expect(query(url, schema)).rejects.toThrow("a server whose role owns it converts it at its start");
  const registry = await serve({ DATABASE_URL: url });
  expect(await registry.count()).toBe(1);
  await registry.stop();
});

test("a table of a later version is refused, and one of an earlier version where another role owns it", async () => {
  const registry = await serve();
  await registry.stop();
  const url = new URL(registry.databaseUrl);
  const name = `r${crypto.randomUUID().replaceAll("-", "")}`;
  await query(
    url.href,
    `create role ${name} login password '${name}'; grant select, insert on pessoas, curtos to ${name}`,
  );
  const owner = url.href;
  url.username = url.password = name;
  const start = (DATABASE_URL: string) => serve({ DATABASE_URL });
  await query(owner, "comment on table pessoas is 'version 99'");
  for (const each of [owner, url.href]) {
    await expect(start(each)).rejects.toThrow(
      /^DATABASE_URL: the table pessoas is of version 99, and .+; start a newer one$/,
    );
  }
  await query(owner, "comment on table pessoas is 'version 1'");
  await expect(start(url.href)).rejects.toThrow(
    "DATABASE_URL: the table pessoas is of an earlier version; a server whose role owns it converts it at its start",
  );
  await (await start(owner)).stop();
});

// Citus itself is needed for what it does: tests/citus.test.ts.
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
  await registry.stop();
});
