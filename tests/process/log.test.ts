import { expect, test } from "bun:test";
import { join } from "node:path";
import { idOf } from "../../contract/pessoa.ts";
import { startEmbedded } from "../../database/embedded.ts";
import { openDb } from "../../db.ts";
import { asJson, asText, trace } from "../../process/log.ts";
import { client, raw } from "../helpers/requests.ts";
import { newDatabase, query, server, spawnServer, temporaryFolder } from "../helpers/support.ts";

const forged = '{"msg":"forged"}';
// Line ends, a colour, a window title, a change of text direction, and characters beyond 16 bits.
const nasty = `x\n${forged}\r\x1b[31m\x9b2J\x85\u2028${forged}\u2029\u202e\u{e0001}\0\ud800`;
const lineEnds = /[\n\r\x85\u2028\u2029]/;

test("an event is one line of JSON, for any content", () => {
  const line = asJson("warn", nasty, { nasty });
  expect(line).not.toMatch(lineEnds);
  expect(line).toMatch(/^[\x20-\x7e]+$/);
  const time = expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
  expect(JSON.parse(line)).toEqual({ time, level: "warn", msg: nasty, nasty });
});

test("on a terminal further lines are indented, and control characters are removed", () => {
  const text = asText(`one\n${nasty}`, { code: "23505", stack: undefined });
  expect(text).toMatch(/^one\n {4}x\n {4}\{"msg[^\n]+ code=23505$/);
  expect(text.replaceAll("\n", "")).not.toMatch(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/u);
});

test("the trace of an unexpected error has neither its message nor values that Postgres quotes", async () => {
  const url = await newDatabase();
  await query(url, "create table t (name text primary key check (name <> 'josé'))");
  const insert = "insert into t values ('josé')";
  const refused = await query(url, insert).catch((error: unknown) => error);
  expect((refused as { detail: string }).detail).toContain("josé");
  (refused as Error).message += nasty;
  expect(trace(refused)).toMatchObject({ error: "PostgresError", code: "23514", stack: undefined });
  const wrong = await query(url, "select 'josé'::date").catch((error: unknown) => error);
  const traced = trace(wrong);
  expect(traced).toMatchObject({ error: "PostgresError", code: "22007" });
  expect(traced.stack).toMatch(/^at .+:\d+:\d+/);
  expect(traced.stack).not.toContain("josé");
  expect(trace(new URIError(`josé\n    at forged (x.ts:1:1)`)).stack).not.toMatch(/jos|forged/);
  expect(trace("josé")).toEqual({ error: "string" });
});

test("on a terminal the log is plain text", async () => {
  const { promise: line, resolve } = Promise.withResolvers<string>();
  let shown = "";
  await using terminal = new Bun.Terminal({
    data(_, bytes) {
      shown += Buffer.from(bytes).toString();
      if (shown.includes("\n")) resolve(shown);
    },
  });
  Bun.spawn(server, { env: { PATH: process.env.PATH ?? "", PORT: "nonsense" }, terminal });
  expect(Bun.stripANSI(await line)).toBe('PORT: expected a whole number from 0 to 65535, got "nonsense"\r\n');
});

const person = {
  apelido: `secreto\n${forged}`,
  nome: `nome-secreto\n${forged}`,
  nascimento: "1971-07-17",
  stack: ["stack-secreto"],
};
const secret = /secreto|1971|forged/;

test("the log has no values of clients, neither of rejected requests nor after a bug", async () => {
  const databaseUrl = await newDatabase();
  const { url, stop } = await spawnServer({ DATABASE_URL: databaseUrl, LOG_LEVEL: "debug" });
  const { get, post, search } = client(url as string);
  const answers = [
    await post(person),
    await post(person),
    await post("secreto"),
    await post({ ...person, nascimento: "secreto" }),
    await get("/secreto%0a?secreto"),
    await get(`/pessoas/secreto%0d%0a${encodeURIComponent(forged)}`),
  ];
  expect(answers.map(({ status }) => status)).toEqual([201, 422, 400, 422, 404, 404]);
  await search("secreto\n");
  await raw(url as string, `GET /\x1b[31msecreto HTTP/1.1\r\nHost: secreto\r\nConnection: close\r\n\r\n`);
  // With an unknown schema every statement is a bug of the server.
  await query(databaseUrl, "alter table pessoas rename nome to other");
  const failed = [
    await post({ ...person, apelido: "outro-secreto" }),
    await get("/pessoas?t=secreto"),
    await get(`/pessoas/${idOf("secreto")}`),
  ];
  expect(failed.map(({ status }) => status)).toEqual([500, 500, 500]);
  expect(await Promise.all(failed.map((answer) => answer.text()))).not.toContain("column");
  // An error of the database with values in its message.
  await query(databaseUrl, "alter table pessoas rename other to nome");
  await query(
    databaseUrl,
    `create function refuse() returns trigger language plpgsql as
        $$ begin raise exception '%', new.nome using errcode = '53100', detail = new.apelido; end $$;
      create trigger refuse before insert on pessoas for each row execute function refuse()`,
  );
  expect((await post({ ...person, apelido: "outro-secreto" })).status).toBe(503);
  const text = await stop();
  expect(text).not.toMatch(secret);
  const events = text
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  expect(events.filter(({ level }) => level === "error")).toEqual(
    Array(3).fill(
      expect.objectContaining({ error: "PostgresError", code: "42703", stack: expect.any(String) }),
    ),
  );
  expect(events.filter(({ level }) => level === "warn")).toEqual([
    expect.objectContaining({ msg: "503: the database's disk is full", code: "53100" }),
  ]);
  expect(events).toContainEqual(
    expect.objectContaining({ level: "debug", msg: "POST /pessoas", status: 201, ms: expect.any(Number) }),
  );
});

test("by default no request is logged; LOG_LEVEL=error logs errors alone", async () => {
  const databaseUrl = await newDatabase();
  const { url, child, logged } = await spawnServer({ DATABASE_URL: databaseUrl });
  await client(url as string).post(person);
  child.kill();
  expect(await logged()).toMatch(/^listening on [^\n]+\nstopping: SIGTERM\nstopped\n$/);
  const silent = await spawnServer({
    DATABASE_URL: "postgres://x@127.0.0.1:1/x",
    LOG_LEVEL: "error",
    PORT: "x",
  });
  expect(await silent.logged()).toStartWith("PORT: ");
});

test("the log of the embedded PostgreSQL has no values of a rejected insert", async () => {
  await using folder = await temporaryFolder();
  const embedded = await startEmbedded(folder.path, () => {});
  const db = openDb({ url: embedded.url, timeoutMs: 5000, batchSize: 8, searches: 1, queueLimit: 8 });
  await db.migrate();
  const insert = () => db.insertPessoa({ ...person, id: idOf(person.apelido) });
  await query(embedded.url, "alter table pessoas add check (nome = '')");
  expect(await insert()).toBe("refused"); // DETAIL: Failing row contains (…)
  await query(embedded.url, "drop table pessoas");
  await db.migrate();
  expect(await insert()).toBe("created");
  const values = `'${idOf(person.apelido)}', 'secreto', 'secreto', '1971-07-17', null, 'secreto'`;
  const again = `insert into pessoas (id, apelido, nome, nascimento, stack, busca) values (${values})`;
  await expect(query(embedded.url, again)).rejects.toMatchObject({ code: "23505" }); // DETAIL: Key (…)=(…)
  await expect(query(embedded.url, "select 'secreto 1971'::date")).rejects.toMatchObject({ code: "22007" });
  await db.close();
  await embedded.stop();
  const text = await Bun.file(join(folder.path, "postgres.log")).text();
  expect(text).toContain("database system is ready");
  expect(text).not.toMatch(secret);
});
