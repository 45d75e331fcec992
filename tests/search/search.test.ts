import { expect, test } from "bun:test";
import { searchable } from "../../search/index-text.ts";
import { maxFound } from "../../search/limits.ts";
import { newPessoa } from "../helpers/requests.ts";
import { connect, newDatabase, query, type Registry, serve } from "../helpers/support.ts";

const create = async (registry: Registry, count: number, more: object) => {
  const created = await Promise.all(
    Array.from({ length: count }, () => registry.post({ ...newPessoa(), ...more })),
  );
  expect(created.map(({ status }) => status)).toEqual(new Array(count).fill(201));
};
const number = async ({ databaseUrl }: Registry, statement: string) =>
  (await query(databaseUrl, `select (${statement})::int as n`))[0]?.n as number;

test("a person in memory is in no index, and a later one is", async () => {
  await using registry = await serve({}, { maxInMemory: 10 });
  await create(registry, 10, { nome: "Maria" });
  expect(await registry.search("maria")).toHaveLength(10); // the search has loaded the persons
  await create(registry, 5, { nome: "Maria" });
  expect(await number(registry, "select count(*) from pessoas where busca is null")).toBe(10);
  expect(await registry.search("maria")).toHaveLength(15);
  expect(await number(registry, "select count(*) from short_terms where term = ''")).toBe(5);
});

test("a person with long texts is always indexed", async () => {
  await using registry = await serve();
  const stack = Array.from({ length: 40 }, (_, i) => `elemento ${i}`);
  await create(registry, 1, { stack });
  expect(await number(registry, "select count(*) from pessoas where busca is null")).toBe(0);
  expect(await registry.search("elemento 39")).toHaveLength(1);
});

test("a short term gets 50 rows, also from two instances", async () => {
  await using first = await serve({}, { maxInMemory: 0 });
  const rows = () => number(first, "select count(*) from short_terms where term = 'ж'");
  await create(first, maxFound, { nome: "ж" });
  await create(first, 5, { nome: "ж" });
  expect(await rows()).toBe(maxFound);
  await using second = await serve({ DATABASE_URL: first.databaseUrl }, { maxInMemory: 0 });
  await create(second, 1, { nome: "ж" });
  expect(await rows()).toBe(maxFound);
  expect(await second.search("Ж")).toHaveLength(maxFound);
});

test("a short term that 50 persons in memory contain gets no row", async () => {
  await using registry = await serve({}, { maxInMemory: maxFound });
  await create(registry, maxFound, { nome: "xy", stack: null });
  expect(await registry.search("xy")).toHaveLength(maxFound);
  await create(registry, 1, { nome: "xz", stack: null });
  const terms = await query(
    registry.databaseUrl,
    "select term from short_terms where term in ('x', 'y', 'z', 'xz', '')",
  );
  expect(terms.map(({ term }) => term).toSorted()).toEqual(["", "xz", "z"]);
  const found = await Promise.all(["x", "y", "z", "xz"].map((term) => registry.search(term)));
  expect(found.map(({ length }) => length)).toEqual([maxFound, maxFound, 1, 1]);
});

test("each character of an encoded text is a lower-case letter or digit to Postgres", async () => {
  let characters = "";
  for (let code = 1; code <= 0x10ffff; code++) {
    if (code < 0xd800 || code > 0xdfff) characters += String.fromCodePoint(code);
  }
  const [written = ""] = searchable({ apelido: characters, nome: "a", stack: null }).text.split("\u0001");
  const used = [...new Set(written)];
  expect(used.length).toBeGreaterThan(30_000);
  await using sql = connect(await newDatabase());
  await sql`create extension pg_trgm`;
  // Then a term is one word, and has a trigram from three characters on.
  const others = await sql`
    select to_hex(ascii(letter)) as code from string_to_table(${used.join("")}, null) as letter
    where show_trgm(letter) = '{}' or lower(letter) <> letter`;
  expect(others.map(({ code }) => code)).toEqual([]);
});

test("every instance finds persons in memory and indexed ones", async () => {
  await using first = await serve({}, { maxInMemory: 1000 });
  await create(first, 1000, { nome: "Maria" });
  await create(first, 3, { nome: "Maria Xwqz" });
  await using second = await serve({ DATABASE_URL: first.databaseUrl }, { maxInMemory: 1000 }); // its memory is full at the start
  await create(second, 4, { nome: "Maria Xwqz" });
  await create(second, 60, { nome: "Zoë Kyjw" });
  for (const registry of [first, second]) {
    const found = await Promise.all(
      ["xwqz", "wqz", "Maria", "Maria Xwqz", "kyjw", "yjwx", "ë", "kq"].map((term) => registry.search(term)),
    );
    expect(found.map(({ length }) => length)).toEqual([7, 7, maxFound, 7, maxFound, 0, maxFound, 0]);
  }
  expect(await number(first, "select count(*) from pessoas where busca is null")).toBeGreaterThanOrEqual(
    1000,
  );
  expect(await number(first, "select count(*) from pessoas where busca is not null")).toBeGreaterThan(60);
});

test("a rejected create leaves no rows of short terms", async () => {
  await using registry = await serve({}, { maxInMemory: 0 });
  await using other = await serve({ DATABASE_URL: registry.databaseUrl }, { maxInMemory: 0 }); // with an empty cache
  const person = newPessoa();
  await registry.post(person);
  const taken = await Promise.all(["ж", "жя", "ю"].map((nome) => other.post({ ...person, nome })));
  expect(taken.map(({ status }) => status)).toEqual([422, 422, 422]);
  for (const term of ["ж", "жя", "я", "ю"]) expect(await other.search(term)).toEqual([]);
  expect(await other.search("bu")).toHaveLength(1);
});

test("the pending list is merged some seconds after the last indexed person", async () => {
  await using registry = await serve({}, { maxInMemory: 0 });
  await using listener = connect(registry.databaseUrl);
  const merged = Promise.withResolvers<string>();
  await listener.listen("merged", merged.resolve);
  await query(
    registry.databaseUrl,
    `create or replace function merge_pending_list() returns bigint language sql
     as $$ select 1::bigint from (select pg_notify('merged', current_setting('statement_timeout'))) as told $$`,
  );
  await create(registry, 3, {});
  expect(await merged.promise).toBe("0"); // no time limit
});
