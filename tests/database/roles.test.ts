import { expect, test } from "bun:test";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { newDatabase, query, serve } from "../helpers/support.ts";

/** A role that may log in, without any right but those in `grants`. */
async function newRole(databaseUrl: string, ...grants: string[]): Promise<string> {
  const url = new URL(databaseUrl);
  const name = `r${crypto.randomUUID().replaceAll("-", "")}`;
  await query(databaseUrl, `create role ${name} login password '${name}'`);
  for (const grant of grants) await query(databaseUrl, `grant ${grant} to ${name}`);
  url.username = url.password = name;
  return url.href;
}

test("a role that may select and insert is enough, once the owner has made the schema", async () => {
  const owner = await serve();
  const url = await newRole(owner.databaseUrl, "select, insert on pessoas, short_terms");
  const registry = await serve({ DATABASE_URL: url });
  const person = (await (await registry.post(newPessoa())).json()) as Found;
  expect(await (await owner.get(`/pessoas/${person.id}`)).json()).toEqual(person);
  expect(await registry.search(person.apelido)).toEqual([person]);
  expect(await registry.count()).toBe(1);
  for (const statement of [
    "create table other (a int)",
    "alter table pessoas add other int",
    "drop table pessoas",
    "truncate pessoas",
    "delete from pessoas",
    "update pessoas set nome = 'other'",
    "select gin_clean_pending_list('pessoas_busca')",
  ]) {
    await expect(query(url, statement)).rejects.toMatchObject({ code: "42501" });
  }
  await query(url, "select merge_pending_list()");
  await Promise.all([registry.stop(), owner.stop()]);
});

test("a role that may do too little, and a schema of another version, are told in one line", async () => {
  const databaseUrl = await newDatabase();
  const hint = "; apply schema.sql as the database's owner";
  const start = (url: string) => serve({ DATABASE_URL: url });
  await expect(start(await newRole(databaseUrl))).rejects.toThrow(
    // Which of the two it lacks first is up to Postgres.
    new RegExp(`^DATABASE_URL: permission denied [^\n]+${hint}$`),
  );
  await (await start(databaseUrl)).stop();
  const url = await newRole(databaseUrl);
  await expect(start(url)).rejects.toThrow(`DATABASE_URL: permission denied for table pessoas${hint}`);
  await query(databaseUrl, `grant select, insert on pessoas to ${new URL(url).username}`);
  await query(databaseUrl, "alter table pessoas rename busca to other");
  await expect(start(url)).rejects.toThrow(`DATABASE_URL: column "busca" does not exist${hint}`);
});
