import { expect, test } from "bun:test";
import { appendFileSync } from "node:fs";
import { join } from "node:path";
import { randomFrom } from "../../stress-test/data/payloads.ts";
import { generator } from "../../stress-test/load/generator.ts";
import { type Body, createOf, openJournal, outcomeOf, readJournal } from "../../stress-test/load/journal.ts";
import type { Found } from "../helpers/requests.ts";
import { temporaryFolder } from "../helpers/support.ts";
import { audit, type Broken } from "./audit.ts";
import { randomBody, startLoad } from "./load.ts";

type Flaw = {
  /** The stored person of a 201; undefined: none. */
  store?: (person: Found) => Found | undefined;
  /** A second person with the same apelido is stored as well. */
  double?: boolean;
  /** The answer is 422, although the apelido is free. */
  taken?: boolean;
  /** The create is stored by `store`, and the answer is 503. */
  silent?: boolean;
  /** The status of the answer; nothing is stored. */
  status?: number;
};

/** A registry in memory. `flaw` is the fault of the `nth` create, counted from 1. */
function registry(flaw: (nth: number) => Flaw = () => ({})) {
  const persons: Found[] = [];
  let creates = 0;
  const server = Bun.serve({
    port: 0,
    routes: {
      "/contagem-pessoas": () => new Response(String(persons.length)),
      "/pessoas/:id": ({ params }) => {
        const person = persons.find(({ id }) => id === params.id);
        return person ? Response.json(person) : new Response(null, { status: 404 });
      },
      "/pessoas": async (request) => {
        if (request.method === "GET") {
          const term = new URL(request.url).searchParams.get("t") as string;
          return Response.json(persons.filter(({ apelido }) => apelido.includes(term)));
        }
        const { store = (person) => person, double, taken, silent, status } = flaw(++creates);
        if (status) return new Response(null, { status });
        const { apelido, nome, nascimento, stack = null } = (await request.json()) as Body;
        if (taken || (!double && persons.some((each) => each.apelido === apelido))) {
          return new Response(null, { status: 422 });
        }
        const person = { id: crypto.randomUUID(), apelido, nome, nascimento, stack };
        const stored = store(person);
        if (stored) persons.push(stored);
        if (double) persons.push({ ...person, id: crypto.randomUUID() });
        if (silent) return new Response(null, { status: 503, headers: { "Retry-After": "1" } });
        return Response.json(person, { status: 201, headers: { Location: `/pessoas/${person.id}` } });
      },
    },
  });
  return { url: server.url.href, persons, [Symbol.asyncDispose]: () => server.stop(true) };
}

async function create(url: string, body: Body) {
  const load = generator({ url });
  const { answer } = await load.ask(createOf(body));
  load.close();
  return outcomeOf(answer);
}

/** Sends 30 creates one after the other, with a journal, and audits it. */
async function auditOf(flaw: (nth: number) => Flaw) {
  await using folder = await temporaryFolder();
  await using server = registry(flaw);
  const journal = openJournal(join(folder.path, "journal"));
  const random = randomFrom(1);
  for (let i = 0; i < 30; i++) {
    const body = randomBody(random);
    const answered = journal.sent(body);
    answered(await create(server.url, body));
  }
  journal.close();
  return await audit(server.url, readJournal(journal.path));
}

const only = (nth: number, flaw: Flaw) => (n: number) => (n === nth ? flaw : {});
const broken = ({ lost, changed, twice, wrong }: Broken) =>
  [lost, changed, twice, wrong].map((b) => b.length);

test("a right registry passes under load, with taken apelidos and earlier persons", async () => {
  await using folder = await temporaryFolder();
  await using server = registry();
  await create(server.url, randomBody(randomFrom(99)));
  const journal = openJournal(join(folder.path, "journal"));
  const load = startLoad({ url: server.url, journal, rate: 500, random: randomFrom(3) });
  for (let i = 0; i < 200; i++) await load.acknowledged();
  const { perSecond } = await load.stop();
  journal.close();
  const verdict = await audit(server.url, readJournal(journal.path), 1);
  expect(broken(verdict)).toEqual([0, 0, 0, 0]);
  expect(verdict.acknowledged).toBeGreaterThanOrEqual(200);
  expect(verdict.refused).toBeGreaterThan(0);
  expect(verdict.stored).toBe(verdict.acknowledged + 1);
  expect(perSecond).toBeGreaterThan(100);
});

test.each<[title: string, flaw: Flaw, expected: (keyof Broken)[]]>([
  ["a person with a 201 is missing", { store: () => undefined }, ["lost"]],
  ["a taken apelido belongs to no person", { taken: true }, ["lost"]],
  ["a nome has changed", { store: (person) => ({ ...person, nome: "x" }) }, ["changed"]],
  ["a stack has changed", { store: (person) => ({ ...person, stack: ["x"] }) }, ["changed"]],
  [
    "an unknown create is stored incompletely",
    { silent: true, store: (p) => ({ ...p, nome: "" }) },
    ["changed"],
  ],
  ["two persons have one apelido", { double: true }, ["twice"]],
  ["a valid person was rejected with 400", { status: 400 }, ["wrong"]],
  ["an outage was answered 500", { status: 500 }, ["wrong"]],
  ["a 503 has no Retry-After", { status: 503 }, ["wrong"]],
])("the audit reports that %s", async (_, flaw, expected) => {
  const verdict = await auditOf(only(7, flaw));
  const seen = (["lost", "changed", "twice", "wrong"] as const).filter((kind) => verdict[kind].length > 0);
  expect(seen).toEqual(expected);
});

test.each<[title: string, flaw: Flaw]>([
  ["is stored", { silent: true }],
  ["is not stored", { silent: true, store: () => undefined }],
])("an unknown create that %s is no loss", async (_, flaw) => {
  const verdict = await auditOf(only(7, flaw));
  expect(broken(verdict)).toEqual([0, 0, 0, 0]);
  expect(verdict).toMatchObject({ acknowledged: 29, unknown: 1, stored: 30 });
});

test("the audit reports an unknown create that is not stored and cannot be sent again", async () => {
  const neither = (nth: number) =>
    nth === 7 ? { silent: true, store: () => undefined } : nth > 30 ? { taken: true } : {};
  expect(broken(await auditOf(neither))).toEqual([1, 0, 0, 0]);
});

test("the audit reports an apelido of two persons, and a wrong count", async () => {
  await using server = registry((nth) => ({ double: nth === 2 }));
  const body = randomBody(randomFrom(1));
  const other = { ...body, nome: "another" };
  const attempts = [];
  for (const each of [body, other]) attempts.push({ body: each, outcome: await create(server.url, each) });
  const { twice, lost } = await audit(server.url, attempts);
  expect(twice.join("\n")).toMatch(/acknowledged 2 times\n.*3 persons have it\nthe count is 3, but only 1 /);
  server.persons.length = 0;
  expect((await audit(server.url, [], 1)).lost).toEqual(["the count is 0, but 1 persons can be read"]);
  expect(lost).toEqual([]);
});

test("a journal whose last line is incomplete still has every create", async () => {
  await using folder = await temporaryFolder();
  const journal = openJournal(join(folder.path, "journal"));
  const [first, second] = [randomBody(randomFrom(1)), randomBody(randomFrom(2))];
  const answered = journal.sent(first);
  journal.sent(second);
  answered({ kind: "refused", status: 422 });
  appendFileSync(journal.path, '{"of":1,"outc');
  expect(readJournal(journal.path)).toEqual([
    { body: first, outcome: { kind: "refused", status: 422 } },
    { body: second, outcome: { kind: "unknown", reason: "no answer" } },
  ]);
  journal.close();
});
