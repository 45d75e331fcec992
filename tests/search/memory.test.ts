import { expect, test } from "bun:test";
import fc from "fast-check";
import { blockBytes, blockFilters } from "../../search/block-filters.ts";
import { lowerCased } from "../../search/index-text.ts";
import { maxFound } from "../../search/limits.ts";
import { openMemory } from "../../search/memory.ts";
import { holds } from "../../stress-test/data/reference-contract.ts";
import { pieceOf } from "../helpers/random-persons.ts";

const character = fc.oneof(
  fc.constantFrom(..."aAbBéÉßİıΣσς😀漢%_\\ \u0001\u00ff\u0080"),
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }).filter((c) => c !== "\0" && c.isWellFormed()),
);
const text = (maxLength: number) => fc.string({ unit: character, minLength: 1, maxLength });
const person = fc.record({
  id: fc.uuid(),
  apelido: text(8),
  nome: text(12),
  stack: fc.option(fc.array(text(4), { maxLength: 4 })),
});

test("a search finds exactly the persons that contain the term, at most 50", () => {
  const asked = fc.array(person, { minLength: 1, maxLength: 200 }).chain((persons) => {
    const fields = persons.flatMap(({ apelido, nome, stack }) => [apelido, nome, ...(stack ?? [])]);
    const piece = pieceOf([...fields, fields.slice(0, 2).join("")]);
    const term = fc.oneof(
      piece,
      piece.map((each) => each.toUpperCase()),
      text(3),
    );
    return fc.tuple(fc.constant(persons), fc.array(term, { minLength: 1, maxLength: 20 }));
  });
  fc.assert(
    fc.property(asked, ([persons, terms]) => {
      const memory = openMemory();
      for (const each of persons)
        memory.add({ ...each, ctid: "(0,1)", stack: each.stack && JSON.stringify(each.stack) });
      for (const term of terms) {
        const wanted = lowerCased(term);
        if (wanted === undefined) continue;
        const found = memory.find(wanted).map(({ id }) => id);
        const holders = persons.filter((each) => holds(each, term)).map(({ id }) => id);
        expect(found.filter((id) => !holders.includes(id))).toEqual([]);
        expect(new Set(found).size).toBe(found.length);
        expect(found.length).toBe(Math.min(maxFound, new Set(holders).size));
      }
    }),
    { numRuns: 1000 },
  );
});

test("an element that 50 stacks contain is left out of later texts, and is still found 50 times", () => {
  const memory = openMemory();
  const add = (stack: string[]) =>
    memory.add({
      id: crypto.randomUUID(),
      ctid: "(4294967295,65535)",
      apelido: "a",
      nome: "n",
      stack: JSON.stringify(stack),
    });
  for (let i = 0; i < maxFound; i++) {
    expect(memory.isCommon("Haskell")).toBe(false);
    add(["Haskell", "Haskell", `agda${i}`]);
  }
  expect([memory.isCommon("Haskell"), memory.isCommon("agda0")]).toEqual([true, false]);
  const before = memory.bytes();
  add(["Haskell", "idris"]);
  expect(memory.bytes() - before).toBe(Buffer.byteLength("a\0n\0idris\0"));
  expect(memory.find("skel")).toHaveLength(maxFound);
  expect([memory.find("idris").length, memory.find("agda7").length]).toEqual([1, 1]);
});

test("after a clear no element is common", () => {
  const memory = openMemory();
  const { isCommon } = memory;
  for (let i = 0; i < maxFound; i++)
    memory.add({ id: crypto.randomUUID(), ctid: "(0,1)", apelido: "a", nome: "n", stack: '["Haskell"]' });
  expect(isCommon("Haskell")).toBe(true);
  memory.clear();
  expect(isCommon("Haskell")).toBe(false);
});

test("a block's filter accepts every piece of its texts, and under 1 % of other terms", () => {
  const filters = blockFilters();
  const texts = Array.from({ length: blockBytes / 64 }, () => Buffer.from(crypto.randomUUID().slice(0, 32)));
  const block = 37;
  for (let earlier = 0; earlier < block; earlier++) filters.add(earlier, Buffer.of(), 0, 0);
  for (const text of texts) filters.add(block, text, 0, text.length);
  const blocksOf = (term: Buffer, first = 0) => [...filters.blocksOf(term, first)];
  for (const text of texts)
    for (let length = 2; length <= 32; length++)
      expect(blocksOf(text.subarray(32 - length))).toEqual([block]);
  const [text = Buffer.of()] = texts;
  expect([blocksOf(text, block), blocksOf(text, block + 1)]).toEqual([[block], []]);
  expect(blocksOf(Buffer.from("a"), 31)).toEqual(Array.from({ length: 33 }, (_, i) => 31 + i));
  const others = Array.from({ length: 1000 }, () => Buffer.from(crypto.randomUUID()));
  expect(others.filter((term) => blocksOf(term).length > 0).length).toBeLessThan(10);
});

test("a search over many blocks finds every person, and a search since a mark only later persons", () => {
  const memory = openMemory();
  const persons = Array.from({ length: 2000 }, (_, i) => ({
    id: crypto.randomUUID(),
    ctid: `(${i},1)`,
    apelido: `apelido ${i} ${crypto.randomUUID()}`,
    nome: `ñ${String.fromCodePoint(0x4e00 + i)}`,
    stack: null,
  }));
  const ids = (term: string, since?: ReturnType<typeof memory.end>) =>
    memory.find(term, since).map(({ id }) => id);
  for (const person of persons.slice(0, 1003)) memory.add(person);
  const end = memory.end();
  for (const person of persons.slice(1003)) memory.add(person);
  for (const [i, { id, apelido, nome }] of persons.entries()) {
    for (const term of [apelido, apelido.slice(-5), nome, nome.slice(1)]) {
      expect(ids(term)).toContain(id);
      expect(ids(term, end).includes(id)).toBe(i >= 1003);
    }
  }
  expect(ids("ñ")).toHaveLength(maxFound);
});

test("each of 20,000 persons is found after the buffers have grown", () => {
  const memory = openMemory();
  const apelidos = Array.from({ length: 20_000 }, (_, i) => `${i}-${Bun.hash(String(i)).toString(36)}`);
  for (const apelido of apelidos)
    memory.add({ id: apelido.padEnd(36), ctid: "(0,1)", apelido, nome: "Pessoa", stack: null });
  expect(apelidos.filter((apelido) => memory.find(apelido).length !== 1)).toEqual([]);
});

test("a person that was added twice is found once", () => {
  const memory = openMemory();
  const twice = { id: crypto.randomUUID(), ctid: "(7,12)", apelido: "a", nome: "n", stack: null };
  memory.add(twice);
  memory.add(twice);
  expect(memory.find("a")).toEqual([{ id: twice.id, ctid: "(7,12)" }]);
});

test("after clear it finds nobody, and accepts new persons", () => {
  const memory = openMemory();
  const [one, other] = [crypto.randomUUID(), crypto.randomUUID()];
  memory.add({ id: one, ctid: "(0,1)", apelido: "a", nome: "n", stack: '["x"]' });
  memory.clear();
  expect([memory.find("a"), memory.persons(), memory.bytes()]).toEqual([[], 0, 0]);
  memory.add({ id: other, ctid: "(0,2)", apelido: "a", nome: "n", stack: null });
  expect(memory.find("a")).toEqual([{ id: other, ctid: "(0,2)" }]);
});
