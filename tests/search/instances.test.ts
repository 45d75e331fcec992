import { expect, setDefaultTimeout, test } from "bun:test";
import { join } from "node:path";
import fc from "fast-check";
import { maxFound } from "../../search/limits.ts";
import type { Pessoa } from "../../stress-test/data/reference-contract.ts";
import { startCluster } from "../helpers/cluster.ts";
import { expectExact, expectFound, samplePersons, termsOf } from "../helpers/random-persons.ts";
import { client, type Found, newPessoa } from "../helpers/requests.ts";
import {
  connect,
  inLoops,
  newDatabase,
  project,
  type Registry,
  serve,
  spawnServer,
} from "../helpers/support.ts";

// For a longer run: CREATES=100000 bun test tests/search/instances.test.ts
const creates = Number(process.env.CREATES ?? 2000);
setDefaultTimeout(Math.max(60_000, 20 * creates));
const loops = 48;

/** Two server processes on one database, each with at most `held` persons in memory. */
async function processes(databaseUrl: string, held: number, timeoutMs = 1000) {
  const program = `
    import { start } from ${JSON.stringify(join(project, "server.ts"))};
    import { readSettings } from ${JSON.stringify(join(project, "process", "settings.ts"))};
    const { url } = await start(readSettings(process.env), { maxInMemory: ${held} });
    console.log("listening on " + url);`;
  const env = { DATABASE_URL: databaseUrl, DB_TIMEOUT_MS: String(timeoutMs), LOG_LEVEL: "error" };
  const started: Awaited<ReturnType<typeof spawnServer>>[] = [];
  // One after the other, because both would apply the schema.
  for (let i = 0; i < 2; i++) started.push(await spawnServer(env, [process.execPath, "-e", program]));
  return {
    pids: started.map(({ child }) => child.pid),
    both: started.map(({ url }) => client(url as string)) as [Instance, Instance],
    async [Symbol.asyncDispose]() {
      for (const { child } of started) child.kill("SIGKILL");
      await Promise.all(started.map(({ child }) => child.exited));
    },
  };
}
type Instance = ReturnType<typeof client>;

let serial = 0;
/** A person, and a term that no other one contains: in each field in turn; every 50th is too long for the memory. */
function personWithTerm() {
  const { apelido: term, ...rest } = newPessoa();
  const n = serial++;
  const person = { ...rest, apelido: `n${n}-${crypto.randomUUID().slice(0, 13)}` };
  if (n % 50 === 0)
    return { term, person: { ...person, stack: [...Array(40).fill("elemento longo"), term] } };
  if (n % 3 === 0) return { term: person.apelido, person };
  return {
    term,
    person: n % 3 === 1 ? { ...person, nome: `Ana ${term} Sá` } : { ...person, stack: ["C", term] },
  };
}

/** The outcome of creates, reads and searches; `missed`: requests with a wrong answer. */
type Tally = { stored: { id: string; term: string }[]; refused: number; missed: string[] };

async function createAndFind(to: Instance, from: Instance[], tally: Tally): Promise<void> {
  const { term, person } = personWithTerm();
  const response = await to.post(person);
  if (response.status !== 201) {
    expect(response.status).toBe(503);
    tally.refused++;
    return;
  }
  const { id } = (await response.json()) as Found;
  tally.stored.push({ id, term });
  await Promise.all(from.map((instance) => find(instance, id, term, tally)));
}

async function find({ get }: Instance, id: string, term: string, tally: Tally): Promise<void> {
  const [read, searched] = await Promise.all([
    get(`/pessoas/${id}`),
    get(`/pessoas?t=${encodeURIComponent(term)}`),
  ]);
  // 503 is allowed; 404 and an empty list are wrong.
  if (read.status !== 503 && (read.status !== 200 || ((await read.json()) as Found).id !== id))
    tally.missed.push(`GET ${id}`);
  if (searched.status === 503) return void tally.refused++;
  const found = (await searched.json()) as Found[];
  if (found.length !== 1 || found[0]?.id !== id) tally.missed.push(`search ${term}`);
}

/** Both instances read and find every stored person. */
async function expectAllFound(both: Instance[], { stored }: Tally): Promise<void> {
  const tally: Tally = { stored: [], refused: 0, missed: [] };
  for (const instance of both) {
    const left = stored.values();
    const run = async () => {
      for (const { id, term } of left) await find(instance, id, term, tally);
    };
    await Promise.all(Array.from({ length: loops }, run));
  }
  expect(tally).toEqual({ stored: [], refused: 0, missed: [] });
}

test("after its 201 a person is read and found on the other instance at once, under load and while the memory fills up", async () => {
  await using it = await processes(await newDatabase(), Math.min(50_000, creates / 2), 10_000);
  const tally: Tally = { stored: [], refused: 0, missed: [] };
  await inLoops(
    loops,
    () => tally.stored.length >= creates,
    async (n) => {
      const [to, from] = (n % 2 ? it.both.toReversed() : it.both) as [Instance, Instance];
      await createAndFind(to, [from], tally);
    },
  );
  expect(tally).toEqual({ stored: expect.anything(), refused: 0, missed: [] });
  await expectAllFound(it.both, tally);
});

test("while a backend of Postgres is stopped in a commit, all other persons are found; afterwards also that one", async () => {
  await using cluster = await startCluster();
  // Commits of persons named Parada wait for a standby that does not exist: flushed, but not visible yet.
  await cluster.sql("alter database postgres set synchronous_commit = local");
  await cluster.sql("alter system set synchronous_standby_names = 'nobody'");
  await cluster.sql("select pg_reload_conf()");
  await using it = await processes(cluster.url, creates / 4);
  const [one] = it.both;
  await cluster.sql(`
    create function waits() returns trigger language plpgsql as
      $$ begin perform set_config('synchronous_commit', 'on', true); return new; end $$;
    create trigger waits before insert on pessoas for each row when (new.nome = 'Parada') execute function waits()`);
  const parada = { ...newPessoa(), nome: "Parada" };
  const answer = one.post(parada);
  let backend: { pid: number; xid: string } | undefined;
  while (backend === undefined) {
    const rows = await cluster.sql(
      "select pid, backend_xid::text as xid from pg_stat_activity where wait_event = 'SyncRep'",
    );
    backend = rows[0] as typeof backend;
  }
  expect(backend.xid).toMatch(/^\d+$/);
  const signal = (name: string) => cluster.spawn(["sh", "-c", `kill -${name} ${backend?.pid}`]).exited;
  await signal("STOP");
  const tally: Tally = { stored: [], refused: 0, missed: [] };
  const through = [0, 0];
  const found: Found[] = [];
  // The instance of that create abandons the connection and continues.
  await inLoops(
    loops,
    () => Math.min(...through) >= creates / 10,
    async (n) => {
      const before = tally.stored.length;
      await createAndFind(it.both[n % 2] as Instance, it.both, tally);
      if (tally.stored.length > before) (through[n % 2] as number)++;
      const answer = await (it.both[(n >> 1) % 2] as Instance).get("/pessoas?t=parada");
      if (answer.status === 200) found.push(...((await answer.json()) as Found[]));
    },
  );
  expect((await answer).status).toBe(503);
  expect(tally.missed).toEqual([]);
  expect(found).toEqual([]);
  await signal("CONT");
  await cluster.sql("alter system reset synchronous_standby_names");
  await cluster.sql("select pg_reload_conf()");
  while ((await cluster.sql("select from pessoas where nome = 'Parada'")).length === 0);
  for (const { search, post } of it.both) {
    expect((await search("parada")).map(({ apelido }) => apelido)).toEqual([parada.apelido]);
    expect((await post(parada)).status).toBe(422);
  }
  await expectAllFound(it.both, tally);
});

test("a stopped instance finds all persons stored meanwhile as soon as it continues, in memory or not", async () => {
  await using it = await processes(await newDatabase(), creates / 6);
  const [one, other] = it.both;
  const stopped = it.pids[1] as number;
  const tally: Tally = { stored: [], refused: 0, missed: [] };
  await inLoops(
    loops,
    () => tally.stored.length >= 100,
    () => createAndFind(one, [other], tally),
  );
  expect(tally.missed).toEqual([]);
  // Some statements are in flight.
  const early = [...tally.stored.slice(0, 20)].map(({ id, term }) => find(other, id, term, tally));
  process.kill(stopped, "SIGSTOP");
  const before = tally.stored.length;
  await inLoops(
    loops,
    () => tally.stored.length >= before + creates / 3,
    () => createAndFind(one, [one], tally),
  );
  const waiting = tally.stored.slice(-loops).map(({ id, term }) => find(other, id, term, tally));
  process.kill(stopped, "SIGCONT");
  await Promise.all([...early, ...waiting]);
  expect(tally.missed).toEqual([]);
  await expectAllFound(it.both, tally);
  for (const { search } of it.both) expect(await search("ana p")).toHaveLength(maxFound);
});

test("two instances find the same as the model while both store, fill their memory and restart in turn", async () => {
  const held = 120;
  const databaseUrl = await newDatabase();
  const start = () => serve({ DATABASE_URL: databaseUrl }, { maxInMemory: held });
  const both = [await start(), await start()] as [Registry, Registry];
  const stored: Pessoa[] = [];
  const sent: Pessoa[] = [];
  for (let round = 0; round < 4; round++) {
    const persons = samplePersons(80);
    const left = persons.entries();
    const storing = async () => {
      for (const [i, person] of left) {
        sent.push(person);
        expect((await (both[i % 2] as Registry).post(person)).status).toBe(201);
        stored.push(person);
      }
    };
    const searching = async () => {
      for (const [i, term] of fc.sample(termsOf(persons), 25).entries()) {
        const before = stored.slice();
        expectFound(await (both[i % 2] as Registry).search(term), term, before, sent);
      }
    };
    await Promise.all([...Array.from({ length: 8 }, storing), ...Array.from({ length: 4 }, searching)]);
    await expectExact(both, stored, 80);
    await both[round % 2]?.stop();
    both[round % 2] = await start();
    await expectExact(both, stored, 30);
  }
  await using sql = connect(databaseUrl);
  const [{ first, later }] = (await sql`
    select count(*) filter (where busca is null)::int as first, count(busca)::int as later from pessoas`) as never as [
    { first: number; later: number },
  ];
  expect(first).toBeGreaterThanOrEqual(held);
  expect(later).toBeGreaterThan(held);
  await Promise.all(both.map((registry) => registry.stop()));
});
