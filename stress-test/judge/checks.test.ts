import { expect, test } from "bun:test";
import { holds, type Pessoa, readPessoa } from "../data/reference-contract.ts";
import { goneOf, judgeRules, readWhenUp } from "./checks.ts";

/** An entry that is right but for one thing: a person is found after some searches, by the instance that has it. */
function lateEntry(searchesUntilFound: readonly number[]) {
  const persons: (Pessoa & { id: string })[] = [];
  const apelidos = new Set<string>();
  let searches = 0;
  const isFindable = (nth: number) => searches > (searchesUntilFound[nth % searchesUntilFound.length] ?? 0);
  return Bun.serve({
    port: 0,
    routes: {
      "/pessoas": {
        async POST(request) {
          const pessoa = readPessoa(await request.text());
          if (typeof pessoa !== "object") return new Response("", { status: pessoa });
          if (apelidos.has(pessoa.apelido)) return new Response("", { status: 422 });
          const id = crypto.randomUUID();
          apelidos.add(pessoa.apelido);
          persons.push({ id, ...pessoa });
          return new Response("", { status: 201, headers: { Location: `/pessoas/${id}` } });
        },
        GET({ url }) {
          const term = new URL(url).searchParams.get("t");
          if (!term) return new Response("", { status: 400 });
          searches++;
          return Response.json(
            persons.filter((person, nth) => isFindable(nth) && holds(person, term)).slice(0, 50),
          );
        },
      },
      "/pessoas/:id": ({ params }) => {
        const person = persons.find(({ id }) => id === params.id);
        return person ? Response.json(person) : new Response("", { status: 404 });
      },
      "/contagem-pessoas": () => new Response(String(persons.length)),
    },
  });
}

/** Asks 20 times, without a pause. */
async function within(_: number, check: () => boolean | Promise<boolean>): Promise<boolean> {
  for (let asked = 0; asked < 20; asked++) if (await check()) return true;
  return false;
}

test("the search is judged when both instances have stored, not when the first one has", async () => {
  using entry = lateEntry([2, 12]);
  const count = async () => Number(await (await fetch(new URL("/contagem-pessoas", entry.url))).text());
  const { evidence, figure } = await judgeRules({
    url: entry.url.origin,
    signal: new AbortController().signal,
    within,
    count,
    counted: async () => ({ count: await count(), ms: 0 }),
  });
  const wrong = evidence.filter(({ outcome }) => outcome === "wrong");
  expect(wrong).toEqual([]);
  expect(evidence.find(({ rule }) => rule === "search: when a person is found")?.outcome).toBe("lenient");
  expect(figure).toStartWith("0 of ");
});

test("the loss of a crash is that of all persons stored so far", () => {
  const lossOf = (before: number, stored: number, count: number, unread: number) => [
    goneOf(before + stored, count, unread),
    before + stored,
  ];
  expect(lossOf(100, 900, 1000, 0)).toEqual([0, 1000]);
  expect(lossOf(100, 900, 1020, 0)).toEqual([0, 1000]); // stored, but without a 201
  expect(lossOf(100, 900, 1020, 5)).toEqual([5, 1000]);
  expect(lossOf(100, 900, 400, 0)).toEqual([600, 1000]); // the cache has what the database has lost
  // An unlogged table is empty after a crash, and 300 persons came afterwards.
  expect(lossOf(100, 900, 300, 600)).toEqual([700, 1000]);
});

test("a 502 while the load balancer takes its upstreams for dead is no loss", async () => {
  const person = { id: "1", apelido: "a", nome: "b", nascimento: "2000-01-01", stack: ["Go"] };
  let failures = 0;
  using entry = Bun.serve({
    port: 0,
    routes: {
      "/pessoas/1": () => Response.json(person),
      "/pessoas/2": () => new Response("", { status: 404 }),
      "/pessoas/3": () => (failures-- > 0 ? new Response("", { status: 502 }) : Response.json(person)),
    },
  });
  const stored = [1, 3].map((nth) => ({ ...person, location: `/pessoas/${nth}` }));
  const read = (locations: typeof stored) => readWhenUp({ url: entry.url.origin, within }, locations);
  failures = 4;
  expect(await read(stored)).toMatchObject({ lost: 0, unreadable: 0, changed: 0, problems: [] });
  failures = 1000;
  expect(await read(stored)).toMatchObject({ lost: 0, unreadable: 1, changed: 0 });
  expect(await read([{ ...person, location: "/pessoas/2" }])).toMatchObject({ lost: 1, unreadable: 0 });
});
