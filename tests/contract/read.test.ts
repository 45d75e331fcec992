import { afterAll, describe, expect, test } from "bun:test";
import { problem } from "../helpers/problem.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { serve, twins } from "../helpers/support.ts";

const { one: registry, other, stop } = await twins();
const { create } = registry;
afterAll(stop);

describe("GET /pessoas/:id", () => {
  test("answers 200 with the person, cacheable for ever, on every instance", async () => {
    const person = await create();
    for (const instance of [registry, other, other]) {
      const response = await instance.get(`/pessoas/${person.id}`);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(response.headers.get("cache-control")).toContain("immutable");
      expect(await response.json()).toEqual(person);
    }
  });

  test("accepts an id in upper case", async () => {
    const { id } = await create();
    const response = await other.get(`/pessoas/${id.toUpperCase()}`);
    expect(((await response.json()) as Found).id).toBe(id);
  });

  test.each([
    "5ce4668c-4710-4cfb-ae5f-38988d6d49cb",
    "00000000-0000-0000-0000-000000000000",
    "not-a-uuid",
    "1",
    "5ce4668c47104cfbae5f38988d6d49cb",
    "{5ce4668c-4710-4cfb-ae5f-38988d6d49cb}",
    "5ce4668c-4710-4cfb-ae5f-38988d6d49cg",
    "%00",
    "%FF",
    "%zz",
    "'; drop table pessoas; --",
  ])("answers 404 for %s", async (id) => {
    await problem(await registry.get(`/pessoas/${id}`), 404);
  });

  test("a person is found after its create, even if an earlier read got 404", async () => {
    const { apelido, ...rest } = newPessoa();
    const elsewhere = await serve(); // the id depends on the apelido alone: create it elsewhere to learn it
    const { id } = (await (await elsewhere.post({ apelido, ...rest })).json()) as Found;
    await elsewhere.stop();
    await problem(await other.get(`/pessoas/${id}`), 404);
    await create({ apelido });
    expect((await other.get(`/pessoas/${id}`)).status).toBe(200);
  });
});

describe("GET /pessoas?t=", () => {
  test("finds a person by apelido, nome and each element of stack, ignoring case, at once and on every instance", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({
      apelido: `Ap${mark}ido`,
      nome: `Zé ÇEDILHA ${mark}`,
      stack: ["C#", `Node ${mark}.JS`],
    });
    const nome = `zé çedilha ${mark}`;
    for (const term of [`AP${mark}IDO`, nome, nome.toUpperCase(), `node ${mark}.js`, mark]) {
      for (const instance of [registry, other]) expect(await instance.search(term)).toEqual([person]);
    }
  });

  test("finds nobody when no field contains the term", async () => {
    const response = await registry.get("/pessoas?t=nobody-has-this-nickname");
    expect([response.status, await response.text()]).toEqual([200, "[]"]);
    expect(response.headers.get("content-type")).toBe("application/json");
  });

  test("returns a stack of null as null", async () => {
    const mark = crypto.randomUUID();
    const person = await create({ nome: mark, stack: null });
    expect(await registry.search(mark)).toEqual([person]);
  });

  test.each("% _ \\ %% \\% 100%_\\x ' \" .* [ + &t= \u0001 \u0002\u0003".split(" "))(
    "%j in a term is literal",
    async (special) => {
      const mark = crypto.randomUUID().slice(0, 8);
      const person = await create({ nome: `${mark}${special}` });
      await create({ nome: `${mark}x${mark}` });
      expect(await other.search(`${mark}${special}`)).toEqual([person]);
    },
  );

  test("never matches across two fields or elements", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    await create({ apelido: `a${mark}`, nome: `b${mark}`, stack: [`c${mark}`, `d${mark}`] });
    const joints = [" ", ...", \n \t | \u0001 \u0002 \u0002\u0003\u0004 \u001f \0 %".split(" "), ""];
    for (const joint of joints) {
      for (const term of [`${mark}${joint}b`, `${mark}${joint}c`, `${mark}${joint}d`]) {
        expect(await registry.search(term)).toEqual([]);
      }
    }
  });

  test.each([
    ["ss", "straße", false],
    ["STRASSE", "strasse", true],
    ["İstanbul", "i̇stanbul", true],
    ["ΟΔΟΣ", "οδος", true],
    ["K", "K", true], // the Kelvin sign
  ])("term %j, nome %j: match %p, as String.prototype.toLowerCase compares", async (term, nome, found) => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `${mark}${nome}` });
    expect(await registry.search(`${mark}${term}`.slice(0, 200))).toEqual(found ? [person] : []);
  });

  test("finds by a term of one or two characters", async () => {
    const nome = "\u{13000}\u{13001}";
    const person = await create({ nome });
    expect(await registry.search("\u{13000}")).toEqual([person]);
    expect(await registry.search(nome)).toEqual([person]);
  });

  test("returns at most 50 persons", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    await Promise.all(Array.from({ length: 55 }, () => create({ nome: mark })));
    const found = await registry.search(mark);
    expect(found).toHaveLength(50);
    expect(new Set(found.map(({ id }) => id)).size).toBe(50);
    expect(found.every(({ nome }) => nome === mark)).toBe(true);
  });

  test("reads both + and %20 as a space, and ignores other parameters", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `x ${mark} y` });
    for (const query of [`t=x+${mark}`, `t=x%20${mark}`, `a=%zz&t=${mark}+y&b&T=9`, `%74=${mark}`]) {
      expect(await (await registry.get(`/pessoas?${query}`)).json()).toEqual([person]);
    }
  });

  test("takes an equals sign as part of the term", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `${mark}=1` });
    expect(await (await registry.get(`/pessoas?t=${mark}=1`)).json()).toEqual([person]);
  });

  test.each([
    "",
    ..."? ?t ?t= ?t=&t= ?t=a&t=b ?t=a&%74=b ?T=a ?x=t ?t=% ?t=%zz ?t=%FF ?t=%C3 ?t=%ED%A0%80".split(" "),
  ])("answers 400 for /pessoas%s", async (queryString) => {
    const { errors } = await problem(await registry.get(`/pessoas${queryString}`), 400);
    expect(errors?.[0]?.field).toBe("t");
  });

  test.each([
    ["4 KB of one letter", "a".repeat(4096)],
    ["nothing but wildcards", "%".repeat(300)],
    ["U+0000", "a\0"],
  ])("finds nobody by %s", async (_, term) => {
    expect(await registry.search(term)).toEqual([]);
  });
});

describe("GET /contagem-pessoas", () => {
  test("answers the exact count as digits, not cacheable, on every instance", async () => {
    const fresh = await serve();
    await using twin = await serve({ DATABASE_URL: fresh.databaseUrl });
    expect(await fresh.count()).toBe(0);
    for (let n = 1; n <= 3; n++) {
      await fresh.post(newPessoa());
      await fresh.post({ ...newPessoa(), nome: 1 });
      for (const instance of [fresh, twin]) {
        const response = await instance.get("/contagem-pessoas");
        expect(response.headers.get("content-type")).toStartWith("text/plain");
        expect(response.headers.get("cache-control")).toBe("no-store");
        expect(await response.text()).toBe(String(n));
      }
    }
    await fresh.stop();
  });
});

describe("after a restart", () => {
  test("every person is counted, read and found", async () => {
    const before = await serve();
    const created = (await Promise.all(Array.from({ length: 30 }, () => before.create()))) as Found[];
    await before.stop();
    await using after = await serve({ DATABASE_URL: before.databaseUrl });
    expect(await after.count()).toBe(30);
    for (const person of created) {
      expect(await (await after.get(`/pessoas/${person.id}`)).json()).toEqual(person);
      expect(await after.search(person.apelido)).toEqual([person]);
    }
  });
});
