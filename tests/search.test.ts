import { expect, test } from "bun:test";
import { searchable } from "../busca.ts";
import { enough } from "../curtos.ts";
import { mergeLittleSearched } from "../merges.ts";
import { connect, newDatabase, newPessoa, query, serve } from "./support.ts";

test("short terms get rows until there are enough, also when the instance is another one", async () => {
  const first = await serve();
  const cyrillic = () => ({ ...newPessoa(), nome: "ж" });
  const rows = async () => {
    const [row] = await query(first.databaseUrl, "select count(*)::int as n from curtos where termo = 'ж'");
    return row?.n as number;
  };
  for (let i = 0; i < enough + 5; i++) await first.post(cyrillic());
  expect(await rows()).toBe(enough);
  const second = await serve({ DATABASE_URL: first.databaseUrl });
  await second.post(cyrillic());
  expect(await rows()).toBe(enough);
  expect(await second.search("Ж")).toHaveLength(enough);
  await Promise.all([first.stop(), second.stop()]);
});

test("what many have in their stack is in enough search texts, and the later ones do without", async () => {
  const first = await serve();
  const texts = async () => {
    const [row] = await query(
      first.databaseUrl,
      "select count(*)::int as n from pessoas where busca like '%haskell%'",
    );
    return row?.n as number;
  };
  const taken = newPessoa();
  await first.post(taken);
  const second = await serve({ DATABASE_URL: first.databaseUrl }); // it does not have them in its cache
  for (let i = 0; i < enough; i++) {
    const { status } = await second.post({ ...taken, stack: ["Haskell"] });
    expect(status).toBe(422); // who is not stored does not count
  }
  for (let i = 0; i < enough + 5; i++) {
    const { status } = await second.post({ ...newPessoa(), stack: ["Haskell", `Agda${i}`, "HASKELL"] });
    expect(status).toBe(201);
  }
  expect(await texts()).toBe(enough);
  for (const registry of [first, second]) {
    const found = await Promise.all(
      ["haskell", "ASKEL", "sk", "agda54", "agda5"].map((term) => registry.search(term)),
    );
    expect(found.map(({ length }) => length)).toEqual([enough, enough, enough, 1, 6]);
  }
  await first.post({ ...newPessoa(), stack: ["haskell"] });
  expect(await texts()).toBe(enough + 1); // what the second has learned the first has not
  await Promise.all([first.stop(), second.stop()]);
});

test("Postgres takes every code point, as a search text has it, for letters or digits and lower-cases none of them", async () => {
  let characters = "";
  for (let code = 1; code <= 0x10ffff; code++) {
    if (code < 0xd800 || code > 0xdfff) characters += String.fromCodePoint(code);
  }
  const [written = ""] = searchable({ apelido: characters, nome: "a", stack: null }).text.split("\u0001");
  const used = [...new Set(written)];
  expect(used.length).toBeGreaterThan(30_000);
  const sql = connect(await newDatabase());
  await sql`create extension pg_trgm`;
  // So each term is one word, and as long as it has three characters it has a trigram.
  const others = await sql`
    select to_hex(ascii(letter)) as code from string_to_table(${used.join("")}, null) as letter
    where show_trgm(letter) = '{}' or lower(letter) <> letter`;
  await sql.end();
  expect(others.map(({ code }) => code)).toEqual([]);
}, 60_000); // 1.1 million code points: on a busy machine longer than the 5 s of the default

test("first and later persons are found, rare or not", async () => {
  const first = await serve();
  const named = async (count: number, nome: string) => {
    const created = await Promise.all(
      Array.from({ length: count }, () => first.post({ ...newPessoa(), nome })),
    );
    expect(created.map(({ status }) => status)).toEqual(new Array(count).fill(201));
  };
  await named(1000, "Maria"); // as many as an instance looks at when it starts
  await named(3, "Maria Xwqz");
  await query(first.databaseUrl, "alter table pessoas alter column n restart with 50001");
  await named(4, "Maria Xwqz");
  await named(60, "Zoë Kyjw");
  const second = await serve({ DATABASE_URL: first.databaseUrl }); // to it the others are rare
  for (const registry of [first, second]) {
    const found = await Promise.all(
      ["xwqz", "wqz", "Maria", "Maria Xwqz", "kyjw", "yjwx"].map((term) => registry.search(term)),
    );
    expect(found.map(({ length }) => length)).toEqual([7, 7, enough, 7, enough, 0]);
  }
  await Promise.all([first.stop(), second.stop()]);
});

test("a create that is refused leaves no term to find somebody else by", async () => {
  const registry = await serve();
  const other = await serve({ DATABASE_URL: registry.databaseUrl }); // it does not have them in its cache
  const person = newPessoa();
  await registry.post(person);
  const taken = await Promise.all(["ж", "жя", "ю"].map((nome) => other.post({ ...person, nome })));
  expect(taken.map(({ status }) => status)).toEqual([422, 422, 422]);
  for (const term of ["ж", "жя", "я", "ю"]) expect(await other.search(term)).toEqual([]);
  expect(await other.search("bu")).toHaveLength(1);
  await Promise.all([registry.stop(), other.stop()]);
});

test(`each ${mergeLittleSearched}th of the later persons has those who wait merged into their index, and none of the first ones`, async () => {
  const registry = await serve();
  const listener = connect(registry.databaseUrl);
  const merged = Promise.withResolvers<string>();
  await listener.listen("merged", merged.resolve);
  await query(
    registry.databaseUrl,
    `create or replace function pessoas_mesclar() returns bigint language sql
     as $$ select 1::bigint from (select pg_notify('merged', max(n) || ' ' || current_setting('statement_timeout')) from pessoas) as told $$`,
  );
  for (const from of [mergeLittleSearched - 1, 20 * mergeLittleSearched - 1]) {
    await query(registry.databaseUrl, `alter table pessoas alter column n restart with ${from}`);
    for (let i = 0; i < 3; i++) expect((await registry.post(newPessoa())).status).toBe(201);
  }
  const [n, statementTimeout] = (await merged.promise).split(" ");
  expect(Number(n)).toBeGreaterThanOrEqual(20 * mergeLittleSearched);
  expect(statementTimeout).toBe("0"); // it may take longer than any request
  await listener.end();
  await registry.stop();
});
