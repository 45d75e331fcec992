import { expect, test } from "bun:test";
import { crowd, people, searches } from "./people.ts";
import { holds, type Pessoa, readPessoa } from "./reference-contract.ts";

function first(seed: number, n: number): Pessoa[] {
  return people(seed).take(n).toArray();
}

test("one seed gives one sequence of valid persons with distinct apelidos", () => {
  const persons = first(3, 3_000);
  expect(first(3, 3_000).map(({ apelido }) => apelido)).toEqual(persons.map(({ apelido }) => apelido));
  expect(new Set(persons.map(({ apelido }) => apelido)).size).toBe(persons.length);
  expect(persons.map((person) => readPessoa(JSON.stringify(person)))).toEqual(persons);
});

test("the expected hits of a search are those of a scan of all persons", () => {
  const persons = first(4, 3_000);
  const all = crowd(4);
  for (const person of persons) all.add(person);
  expect(all.size()).toBe(persons.length);
  for (const [name, next] of Object.entries(searches(all, 4))) {
    for (let i = 0; i < 5; i++) {
      const { term, hits, finds } = next();
      const found = persons.filter((person) => holds(person, term));
      if (hits !== undefined) expect([name, term, Math.min(found.length, 50)]).toEqual([name, term, hits]);
      if (finds !== undefined) expect(found.map(({ apelido }) => apelido)).toContain(finds);
      if (/^[123] code point/.test(name)) expect([name, [...term].length]).toEqual([name, Number(name[0])]);
    }
  }
});
