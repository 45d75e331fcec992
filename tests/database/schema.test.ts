import { expect, test } from "bun:test";
import { idOf } from "../../contract/pessoa.ts";
import { checkRecovery } from "../../database/checks.ts";
import schema from "../../schema.sql" with { type: "text" };
import { newPessoa } from "../helpers/requests.ts";
import { connect, newDatabase, query, serve } from "../helpers/support.ts";

/** The URL of a new role with these grants alone. */
async function newRole(databaseUrl: string, ...grants: string[]): Promise<string> {
  const url = new URL(databaseUrl);
  const name = `r${crypto.randomUUID().replaceAll("-", "")}`;
  await query(databaseUrl, `create role ${name} login password '${name}'`);
  for (const grant of grants) await query(databaseUrl, `grant ${grant} to ${name}`);
  url.username = url.password = name;
  return url.href;
}

test("several instances start at once on an empty database", async () => {
  const url = await newDatabase();
  const instances = await Promise.all(Array.from({ length: 5 }, () => serve({ DATABASE_URL: url })));
  for (const instance of instances) expect((await instance.get("/readyz")).status).toBe(200);
  await Promise.all(instances.map((instance) => instance.stop()));
});

test("a table pessoas without a schema version is refused and not changed", async () => {
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

test("a later schema version is refused, for the owner and for another role", async () => {
  const registry = await serve();
  await registry.stop();
  const owner = registry.databaseUrl;
  const user = await newRole(owner, "select, insert on pessoas, short_terms");
  await query(owner, "comment on table pessoas is 'version 99'");
  for (const DATABASE_URL of [owner, user]) {
    await expect(serve({ DATABASE_URL })).rejects.toThrow(
      "DATABASE_URL: the table pessoas has schema version 99, which this server does not know; start a newer server",
    );
  }
});

test("select and insert are enough rights after the owner has applied the schema", async () => {
  await using owner = await serve();
  const url = await newRole(owner.databaseUrl, "select, insert on pessoas, short_terms");
  await using registry = await serve({ DATABASE_URL: url });
  const person = await registry.create();
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
});

test("a missing right and a missing column are reported in one line", async () => {
  const databaseUrl = await newDatabase();
  const hint = "; apply schema.sql as the database's owner";
  const start = (url: string) => serve({ DATABASE_URL: url });
  await expect(start(await newRole(databaseUrl))).rejects.toThrow(
    // Postgres chooses which missing right it reports.
    new RegExp(`^DATABASE_URL: permission denied [^\n]+${hint}$`),
  );
  await (await start(databaseUrl)).stop();
  const url = await newRole(databaseUrl);
  await expect(start(url)).rejects.toThrow(`DATABASE_URL: permission denied for table pessoas${hint}`);
  await query(databaseUrl, `grant select, insert on pessoas to ${new URL(url).username}`);
  await query(databaseUrl, "alter table pessoas rename busca to other");
  await expect(start(url)).rejects.toThrow(`DATABASE_URL: column "busca" does not exist${hint}`);
});

/** Makes the catalog say that the database is a Citus of one node; tests/database/citus.test.ts uses a real cluster. */
const pretendCitus = (databaseUrl: string) =>
  query(
    databaseUrl,
    `set allow_system_table_mods = on;
     insert into pg_extension select 4242, 'citus', extowner, extnamespace, false, '1', null, null from pg_extension limit 1;
     create table pg_dist_partition (logicalrelid regclass);
     create table pg_dist_node (isactive bool, shouldhaveshards bool, noderole text);
     create function truncate_local_data_after_distributing_table(of text) returns void language sql as '';
     create function create_distributed_table(of text, by text, shard_count int default 1, colocate_with text default '')
       returns void language sql as 'insert into pg_dist_partition values (of::regclass)';
     create function citus_backend_gpid() returns bigint language sql as 'select 0::bigint';
     create function citus_nodeid_for_gpid(gpid bigint) returns int language sql as 'select 0';
     create function citus_calculate_gpid(node int, pid int) returns bigint language sql as 'select pid::bigint';
     create view citus_stat_activity as select pid::bigint as global_pid, true as is_worker_query, wait_event from pg_stat_activity`,
  );

test("when the catalog has Citus, persons in memory get their index columns, and new ones have them", async () => {
  const plain = await serve();
  const before = { ...newPessoa(), nome: "Antes жя" };
  expect((await plain.post(before)).status).toBe(201);
  await plain.stop();
  await pretendCitus(plain.databaseUrl);
  await using registry = await serve({ DATABASE_URL: plain.databaseUrl });
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
  ).rejects.toThrow("violates not-null constraint"); // as an instance from before would insert
});

test("when the catalog has Citus, a row that another transaction holds delays no other row", async () => {
  const plain = await serve();
  await plain.stop();
  await pretendCitus(plain.databaseUrl);
  await using registry = await serve({ DATABASE_URL: plain.databaseUrl, DB_TIMEOUT_MS: "1000" });
  const person = newPessoa();
  await using sql = connect(plain.databaseUrl);
  await sql`begin`;
  await sql`insert into pessoas (id, nascimento, apelido, nome, busca)
    values (${idOf(person.apelido)}, '2000-01-01', ${person.apelido}, 'nome', '')`;
  const neighbours = Array.from({ length: 20 }, newPessoa);
  const statuses = async (people: object[]) =>
    (await Promise.all(people.map((each) => registry.post(each)))).map(({ status }) => status);
  const [held, ...others] = await statuses([person, ...neighbours]);
  expect([held, new Set(others)]).toEqual([503, new Set([201])]);
  expect(await statuses([person, newPessoa()])).toEqual([503, 201]);
  await sql`rollback`;
  expect(await statuses([person])).toEqual([201]);
});

test("the interval in which Citus decides transactions is set to 1 s, or a role without the right is warned", async () => {
  const databaseUrl = await newDatabase();
  const name = "wal_receiver_timeout"; // of plain Postgres: also in milliseconds, 60 s by default
  const messages: string[] = [];
  const log = { info: (message: string) => messages.push(message), warn() {} };
  const check = async (url: string) => {
    await using sql = connect(url);
    const unsafe = (text: string) => sql.unsafe(text.replaceAll("citus.recover_2pc_interval", name));
    return await checkRecovery({ unsafe } as Pick<typeof sql, "unsafe">, log);
  };
  expect(await check(await newRole(databaseUrl))).toEqual([
    expect.stringMatching(/ is 1min: .+; set it to 1s$/),
  ]);
  expect(messages).toEqual([]);
  expect(await check(databaseUrl)).toEqual([]);
  expect(messages).toEqual([expect.stringMatching(/ was 1min; now it is 1s$/)]);
  await query(databaseUrl, `alter system reset ${name}`);
});
