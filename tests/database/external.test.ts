import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { type Cluster, startCluster } from "../helpers/cluster.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { listens, serve, spawnServer } from "../helpers/support.ts";
import { freePort } from "../helpers/topology.ts";

// A PostgreSQL server that DATABASE_URL names.

const password = "p@ss/#?%";
const login = `pessoas:${encodeURIComponent(password)}`;
let cluster: Cluster;
let serial = 0;

beforeAll(async () => {
  cluster = await startCluster();
  await cluster.sql(`create role pessoas login password '${password}'`);
});
afterAll(() => cluster[Symbol.asyncDispose]());

/** The name of a new database. `setup` runs in it as superuser, and NAME there is its name. */
async function newDatabase(setup = "", options = ""): Promise<string> {
  const name = `d${++serial}`;
  await cluster.sql(`create database ${name} owner pessoas ${options}`);
  if (setup) await cluster.sql(setup.replaceAll("NAME", name), name);
  return name;
}

const socketUrl = (database: string) =>
  `postgres://pessoas@/${database}?host=${cluster.folder}&port=${cluster.port}`;
const tcpUrl = (database: string, query = "", host = "127.0.0.1") =>
  `postgres://${login}@${host}:${cluster.port}/${database}${query}`;

/** Creates, reads, finds and counts persons with these settings. Resolves with the lines of the log. */
async function expectServed(env: Record<string, string>): Promise<string[]> {
  const logged: string[] = [];
  const spy = spyOn(console, "error").mockImplementation((line) => void logged.push(String(line)));
  try {
    await using registry = await serve(env);
    const response = await registry.post({ ...newPessoa(), nome: "josé" });
    expect([response.status, logged]).toEqual([201, logged]);
    const person = (await response.json()) as Found;
    expect(await (await registry.get(`/pessoas/${person.id}`)).json()).toEqual(person);
    await using twin = await serve(env); // without a cache
    expect(await (await twin.get(`/pessoas/${person.id}`)).json()).toEqual(person);
    expect(await twin.search(person.apelido)).toEqual([person]);
    expect(await twin.search("josé")).toContainEqual(person);
    expect(await twin.count()).toBeGreaterThan(0);
    expect((await twin.get("/readyz")).status).toBe(200);
    return logged;
  } finally {
    spy.mockRestore();
  }
}

async function expectRefused(env: Record<string, string>, message: string | RegExp): Promise<void> {
  const refused = await serve(env).then(
    (registry) => registry.stop().then(() => new Error("it serves")),
    (error: Error) => error,
  );
  expect(refused.message).toMatch(message);
  expect(refused.message).toMatch(/^DATABASE_URL: [^\n]+$/);
  expect(refused).toBeInstanceOf(RangeError);
}

describe("DATABASE_URL names", () => {
  const hasIpv6 = Object.values(networkInterfaces()).some((all) =>
    all?.some(({ address }) => address === "::1"),
  );

  test.each([
    ["an address, a user and a password with special characters", "postgres://LOGIN@127.0.0.1:PORT/forms"],
    ["a folder of a Unix socket", "postgres://pessoas@/forms?host=FOLDER&port=PORT"],
    ["a folder instead of the host", "postgres://pessoas@ENCODED:PORT/forms"],
    [
      "parameters alone",
      "postgres:///?host=127.0.0.1&port=PORT&user=pessoas&password=p%40ss%2F%23%3F%25&dbname=forms",
    ],
    ["keywords", "host=127.0.0.1 port=PORT user=pessoas password='p@ss/#?%' dbname=forms"],
    ["several hosts, the first of which is down", "postgres://LOGIN@127.0.0.1:1,127.0.0.1:PORT/forms"],
    [
      "several hosts, one of which accepts writes",
      "postgres://LOGIN@127.0.0.1:PORT,127.0.0.1:1/forms?target_session_attrs=read-write",
    ],
    ["a name and its address", "postgres://LOGIN@db.invalid:PORT/forms?hostaddr=127.0.0.1"],
    ["a name with a slash and a space", "postgres://LOGIN@127.0.0.1:PORT/a%2Fb%20c"],
    [
      "parameters of libpq without a meaning here",
      "postgres://LOGIN@127.0.0.1:PORT/forms?channel_binding=prefer&application_name=x&connect_timeout=10",
    ],
  ])("%s", async (_, url) => {
    await cluster.sql(`create database forms owner pessoas`).catch(() => {});
    await cluster.sql(`create database "a/b c" owner pessoas`).catch(() => {});
    const { folder, port } = cluster;
    const DATABASE_URL = url
      .replace("LOGIN", login)
      .replace("FOLDER", folder)
      .replace("ENCODED", encodeURIComponent(folder))
      .replace("PORT", String(port));
    await expectServed({ DATABASE_URL });
  });

  test.if(hasIpv6)("an IPv6 address", async () => {
    await expectServed({ DATABASE_URL: tcpUrl(await newDatabase(), "", "[::1]") });
  });

  test("a part of the address, and psql's variables the rest", async () => {
    const name = await newDatabase();
    const PGPORT = String(cluster.port);
    const env = { PGPORT, PGUSER: "pessoas", PGPASSWORD: password, PGCLIENTENCODING: "LATIN1" };
    await expectServed({ ...env, DATABASE_URL: `postgres://127.0.0.1/${name}` });
    await expectServed({ ...env, PGHOST: "127.0.0.1", PGDATABASE: name, DATABASE_URL: "postgres://" });
    // In a process of its own, because the driver reads the environment, too.
    const other = { PGPORT: "1", PGUSER: "other", PGPASSWORD: "other" };
    const wrong = { ...other, PGTARGETSESSIONATTRS: "any", PGAPPNAME: "mine" };
    await using begun = await spawnServer({ ...wrong, DATABASE_URL: tcpUrl(name) });
    expect(begun.url).toBeDefined();
    expect((await fetch(new URL("/readyz", begun.url))).status).toBe(200);
    const [session] = await cluster.sql(
      `select count(*)::int from pg_stat_activity where application_name = 'mine'`,
    );
    expect(session?.count).toBeGreaterThan(0);
  });

  test("an unreachable server: the log has the reason, and the server retries", async () => {
    for (const hosts of ["127.0.0.1:1", "127.0.0.1:1,127.0.0.1:2"]) {
      const { url, child, logged } = await spawnServer({ DATABASE_URL: `postgres://u@${hosts}/d` });
      expect((await fetch(new URL("/readyz", url))).status).toBe(503);
      child.kill();
      expect(await logged()).toMatch(
        /^the database cannot be reached \(connect ECONNREFUSED 127\.0\.0\.1:\d\): trying again/,
      );
    }
  });

  test("an unknown database, a wrong password or an unknown parameter: one line, and exit status 1", async () => {
    await expectRefused({ DATABASE_URL: tcpUrl("nowhere") }, 'database "nowhere" does not exist');
    const wrong = `postgres://pessoas:wrong@127.0.0.1:${cluster.port}/postgres`;
    await expectRefused({ DATABASE_URL: wrong }, /password authentication failed for user "pessoas"$/);
    await expectRefused(
      { DATABASE_URL: tcpUrl("postgres", "?options=endpoint%3Dx") },
      /argument.+: endpoint=x$/,
    );
    await expectRefused({ DATABASE_URL: tcpUrl("postgres", "?options=-c%20a_b%3Dx") }, /parameter "a_b"$/);
    const { child, logged } = await spawnServer({ DATABASE_URL: wrong });
    expect(await logged()).toBe('DATABASE_URL: password authentication failed for user "pessoas"\n');
    expect(child.exitCode).toBe(1);
  });
});

describe("SSL", () => {
  const openssl = Bun.which("openssl") !== null;
  const reason = openssl ? "" : " (SKIPPED: needs openssl)";
  const usesSsl = async () => {
    const rows = await cluster.sql(
      "select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid) where application_name = 'pessoas'",
    );
    return rows.map(({ ssl }) => ssl as boolean);
  };

  test.if(openssl).each([
    ["", true],
    ["?sslmode=disable", false],
    ["?sslmode=allow", true],
    ["?sslmode=require&channel_binding=require", true],
    ["?sslmode=verify-ca&sslrootcert=FILE", true],
    ["?sslmode=verify-full&sslrootcert=FILE", true],
  ])(`%s: %p${reason}`, async (query, ssl) => {
    const name = await newDatabase();
    const full = query.replace("FILE", cluster.certificate as string);
    const host = query.includes("full") ? "localhost" : "127.0.0.1";
    await using registry = await serve({ DATABASE_URL: tcpUrl(name, full, host) });
    expect((await registry.post(newPessoa())).status).toBe(201);
    expect(await usesSsl()).toEqual([ssl]);
  });

  test.if(openssl)(`an unknown issuer, or a certificate for another name, is rejected${reason}`, async () => {
    const name = await newDatabase();
    const hint = /; set sslrootcert to the certificate of its signer, or sslmode=require to skip this check$/;
    for (const query of ["?sslmode=verify-full", "?sslrootcert=system"]) {
      await expectRefused({ DATABASE_URL: tcpUrl(name, query) }, /self.signed certificate/);
      await expectRefused({ DATABASE_URL: tcpUrl(name, query) }, hint);
    }
    const query = `?sslmode=verify-full&sslrootcert=${cluster.certificate}`;
    await expectRefused({ DATABASE_URL: tcpUrl(name, query) }, "does not match certificate's altnames");
  });
});

describe("the schema", () => {
  const trgm = "create extension pg_trgm;";
  const own = "create schema rinha authorization pessoas;";
  const tables = (name: string) =>
    cluster.sql(
      `select relnamespace::regnamespace::text as schema from pg_class where relname in ('pessoas', 'short_terms')
       union all select pronamespace::regnamespace::text from pg_proc where proname = 'merge_pending_list'`,
      name,
    );

  test.each([
    ["search_path in the URL", `${trgm}${own}`, "&search_path=rinha"],
    ["options in the URL", `${trgm}${own}`, "&options=-c%20search_path%3Drinha"],
    [
      "a database's search_path, pg_trgm in a third schema",
      `${own} create schema extensions; grant usage on schema extensions to pessoas;
       create extension pg_trgm schema extensions; alter database NAME set search_path = rinha`,
      "",
    ],
    [
      "a schema whose name needs quotes",
      `${trgm} create schema "Rinha ""'" authorization pessoas`,
      `&search_path=${encodeURIComponent(`"Rinha ""'"`)}`,
    ],
  ])(
    "%s: both tables and the function are in it, and the owner can call the function",
    async (_, setup, query) => {
      const name = await newDatabase(setup);
      await expectServed({ DATABASE_URL: socketUrl(name) + query });
      const schemas = (await tables(name)).map(({ schema }) => schema as string);
      expect(schemas).toHaveLength(3);
      expect(new Set(schemas)).toEqual(new Set([expect.stringMatching(/rinha/i)]));
      await cluster.sql(`select ${schemas[0]}.merge_pending_list()`, name);
    },
  );

  test("a missing table is made beside the other one", async () => {
    const name = await newDatabase(`${trgm} grant create on schema public to pessoas`);
    await expectServed({ DATABASE_URL: socketUrl(name) });
    await cluster.sql("create schema pessoas authorization pessoas; drop table short_terms", name);
    await expectServed({ DATABASE_URL: socketUrl(name) });
    expect((await tables(name)).map(({ schema }) => schema)).toEqual(["public", "public", "public"]);
  });

  const owner = "; apply schema.sql as the database's owner";
  const pessoas = (id = "uuid primary key", apelido = "text") =>
    `create table pessoas (id ${id}, nascimento date, apelido ${apelido}, nome text, stack json, busca text, tx xid8);`;
  const ours = "alter table pessoas owner to pessoas";
  test.each([
    [
      "an unknown schema",
      trgm,
      "&search_path=rinha",
      "no schema of the search_path rinha exists for this role",
    ],
    [
      "pg_trgm out of reach",
      `${own} create schema extensions; create extension pg_trgm schema extensions`,
      "&search_path=rinha",
      /gin_trgm_ops.+; grant this role usage on the schema of pg_trgm, or apply schema\.sql/,
    ],
    ["another table of that name", `create table pessoas (n bigint); ${ours}`, "", owner],
    [
      "a view of that name",
      "create view pessoas as select 1 as n; alter view pessoas owner to pessoas",
      "",
      owner,
    ],
    [
      "a column of another kind",
      `${pessoas("uuid primary key", "varchar(9)")} ${ours}`,
      "",
      `apelido of pessoas is character varying and not text${owner}`,
    ],
    ["ids that are not unique", pessoas("uuid") + ours, "", `the column id of pessoas is not unique${owner}`],
    [
      "a table that this role may only read",
      `${pessoas()} create table short_terms (term text, id uuid); grant select on pessoas, short_terms to pessoas`,
      "",
      `the role pessoas may not insert into pessoas${owner}`,
    ],
    [
      "a database with one of the two tables",
      `${pessoas()} grant select on pessoas to pessoas`,
      "",
      `relation "short_terms" does not exist${owner}`,
    ],
  ])("%s is rejected", async (_, setup, query, message) => {
    const name = await newDatabase(`grant create on schema public to pessoas; ${setup}`);
    await expectRefused({ DATABASE_URL: socketUrl(name) + query }, message);
  });
});

describe("settings of a database or a role", () => {
  test.each(["LATIN1", "SQL_ASCII"])("the encoding %s is rejected", async (encoding) => {
    const name = await newDatabase("", `encoding '${encoding}' template template0`);
    const message = `the database's encoding is ${encoding}; expected UTF8`;
    await expectRefused({ DATABASE_URL: socketUrl(name) }, message);
  });

  test("that would change answers or lose a 201 are overridden", async () => {
    const settings = {
      bytea_output: "escape",
      client_encoding: "LATIN1",
      DateStyle: "German",
      default_transaction_isolation: "serializable",
      default_transaction_read_only: "on",
      gin_fuzzy_search_limit: "1",
      idle_session_timeout: "2000",
      IntervalStyle: "iso_8601",
      lock_timeout: "1",
      quote_all_identifiers: "on",
      standard_conforming_strings: "off",
      statement_timeout: "200",
      synchronous_commit: "off",
    };
    const set = Object.entries(settings).map(
      ([key, value]) => `alter role pessoas in database NAME set "${key}" = '${value}'`,
    );
    const name = await newDatabase(set.join("; "));
    await expectServed({ DATABASE_URL: socketUrl(name) });
    // The settings as the sessions see them.
    await cluster.sql(
      `create table seen (commit text, path text); grant insert on seen to pessoas;
       create function see() returns trigger language plpgsql as $$ begin
         insert into seen values (current_setting('synchronous_commit'), current_setting('DateStyle')); return new; end $$;
       create trigger see before insert on pessoas for each row execute function see()`,
      `${name}`,
    );
    await expectServed({ DATABASE_URL: socketUrl(name) });
    await cluster.sql(`alter role pessoas in database ${name} set synchronous_commit = remote_apply`);
    await expectServed({ DATABASE_URL: socketUrl(name) });
    const seen = await cluster.sql("select distinct * from seen order by 1", name);
    expect(seen.map(({ commit, path }) => `${commit} ${path}`)).toEqual([
      "on ISO, DMY",
      "remote_apply ISO, DMY",
    ]);
  });

  test("fsync off is reported in one line", async () => {
    const logged = await expectServed({ DATABASE_URL: socketUrl(await newDatabase()) });
    expect(logged[0]).toContain("DATABASE_URL: fsync is off: a power cut loses persons with a 201");
  });

  test("a failed insert gets 422 if its SQLSTATE blames the row, else 503, and the log quotes no values", async () => {
    const name = await newDatabase();
    await using registry = await serve({ DATABASE_URL: socketUrl(name) });
    await cluster.sql("create function refuse() returns trigger language plpgsql as 'begin end'", name);
    await cluster.sql(
      "create trigger refuse before insert on pessoas for each row execute function refuse()",
      name,
    );
    const spy = spyOn(console, "error").mockImplementation(() => {});
    const passing = "0A000 25006 40P01 42601 42703 53100 57014 XX000".split(" ").map((code) => [code, 503]);
    const rows = "22001 23514 44000 54000 P0001".split(" ").map((code) => [code, 422]);
    for (const [code, status] of [...rows, ...passing]) {
      await cluster.sql(
        `create or replace function refuse() returns trigger language plpgsql as
           $$ begin raise exception '%', new.nome using errcode = '${code}'; end $$`,
        name,
      );
      const response = await registry.post({ ...newPessoa(), nome: "secreto" });
      expect([code, response.status]).toEqual([code, status]);
      expect(await response.text()).not.toMatch(/secreto|cannot be reached/);
    }
    expect(JSON.stringify(spy.mock.calls)).not.toContain("secreto");
    spy.mockRestore();
  });
});

const pgbouncer = Bun.which("pgbouncer") ?? Bun.which("pgbouncer", { PATH: "/usr/sbin" });
const reason = pgbouncer ? "" : " (SKIPPED: needs pgbouncer)";

describe("PgBouncer", () => {
  /** A new PgBouncer on a new database; `url` leads through it. */
  async function pooler(mode: string, more = "") {
    const port = freePort();
    const database = await newDatabase();
    const file = join(cluster.folder, `pgbouncer-${port}.ini`);
    await Bun.write(
      file,
      `[databases]\n* = host=${cluster.folder} port=${cluster.port} user=pessoas
      [pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=${port}\nunix_socket_dir=\nauth_type=any\npool_mode=${mode}\n${more}`,
    );
    const child = cluster.spawn([pgbouncer as string, file]);
    const url = `postgres://pessoas@127.0.0.1:${port}/${database}`;
    while (child.exitCode === null && !(await listens(port))) await Bun.sleep(20);
    return {
      url,
      async [Symbol.asyncDispose]() {
        child.kill();
        await child.exited;
      },
    };
  }

  test.if(!reason)(`works in session mode${reason}`, async () => {
    await using session = await pooler("session");
    await expectServed({ DATABASE_URL: session.url });
    await expectServed({ DATABASE_URL: `${session.url}?search_path=public` });
  });

  test.if(!reason).each([
    ["transaction", "", /^DATABASE_URL: a pooler in transaction mode keeps no session: use its session mode/],
    ["transaction", "default_pool_size=1", "a pooler in transaction mode keeps no session"],
    ["transaction", "default_pool_size=3", "a pooler in transaction mode keeps no session"],
    ["transaction", "server_round_robin=1", "a pooler in transaction mode keeps no session"],
    [
      "statement",
      "",
      "transaction blocks not allowed in statement pooling mode; a pooler in transaction mode",
    ],
    ["session", "default_pool_size=7", "the pooler allows 7 connections, and an instance needs 8 to start"],
  ])(`in %s mode, with %s, is rejected${reason}`, async (mode, more, message) => {
    await using other = await pooler(mode, more);
    await expectRefused({ DATABASE_URL: other.url }, message);
  });

  test.if(!reason)(`works with a pool of 8 connections${reason}`, async () => {
    await using session = await pooler("session", "default_pool_size=8");
    await using registry = await serve({ DATABASE_URL: session.url });
    expect((await registry.post(newPessoa())).status).toBe(201);
  });

  test.if(!reason)(
    `a parameter that PgBouncer rejects is reported in PgBouncer's words${reason}`,
    async () => {
      await using session = await pooler("session");
      const DATABASE_URL = `${session.url}?options=-csearch_path%3Dpublic`;
      const message = "unsupported startup parameter: options; leave options out, or let the pooler";
      await expectRefused({ DATABASE_URL }, message);
    },
  );
});
