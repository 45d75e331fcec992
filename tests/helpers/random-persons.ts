import { expect } from "bun:test";
import fc from "fast-check";
import { maxFound } from "../../search/limits.ts";
import { holds, type Pessoa } from "../../stress-test/data/reference-contract.ts";
import type { Registry } from "./support.ts";

// Characters that once broke searching or storing: wildcards, separators, letters with unusual cases.
export const hostile = fc.constantFrom(
  ...["a", "A", "b", "é", "É", "e\u0301", "ß", "ẞ", "İ", "ı", "Σ", "σ", "ς", "K", "Ǆ", "😀", "\u{10400}"],
  ...["%", "_", "\\", "'", '"', "{", "}", ",", " ", "+", "&", "=", "#", "/", "\n", "\u200d", "\uffff"],
  ..."×ſӀӏ\u0483・ー龥\u9fa6\u3400\u3c40\u1c89\u{30000}\u{323b0}",
  ...["\u0001", "\u0002", "\u0003", "\u0004", "\u0005", "\u007f"],
);
const text = (maxLength: number) => fc.string({ unit: hostile, minLength: 1, maxLength });
export const nascimento = fc
  .date({ min: new Date("0001-01-01"), max: new Date("9999-12-31"), noInvalidDate: true })
  .map((date) => date.toISOString().slice(0, 10));
export const person = fc.record({
  // The number makes apelidos unique despite the small alphabet.
  apelido: fc.tuple(fc.nat(), text(16)).map(([n, rest]) => `${n.toString(36)}${rest}`),
  nome: text(40),
  nascimento,
  stack: fc.option(fc.array(text(12), { maxLength: 5 })),
});

// In a large sample some elements are in more than 50 stacks, and some in nearly 50.
const element = fc.oneof(
  text(12),
  fc.constantFrom("C++", "%_\\", "É😀", "İß龥", "\u0001'\"", "node.JS", "Node.js"),
  fc.nat({ max: 40 }).map((n) => `Elemento ${n}`),
);

/** Persons with unique apelidos and shared elements; every tenth is too long for the memory of instances. */
export function samplePersons(count: number): Pessoa[] {
  const stack = fc.option(fc.array(element, { maxLength: 5 }));
  const long = fc.array(text(32), { minLength: 40, maxLength: 60 });
  const persons = fc.sample(
    fc.tuple(person, fc.oneof({ weight: 9, arbitrary: stack }, { weight: 1, arbitrary: long }), fc.uuid()),
    count,
  );
  return persons.map(([{ apelido, nome, nascimento }, stack, uuid]) => ({
    apelido: `${uuid.slice(0, 13)}${[...apelido].slice(0, 19).join("")}`,
    nome,
    nascimento,
    stack,
  }));
}

/** A run of characters of one of these texts. */
export const pieceOf = (texts: string[]): fc.Arbitrary<string> =>
  fc.tuple(fc.constantFrom(...texts), fc.nat(), fc.nat()).map(([text, from, length]) => {
    const characters = [...text];
    const start = from % characters.length;
    return characters.slice(start, start + 1 + (length % characters.length)).join("");
  });

/** Pieces of these persons' fields, two such pieces in a row, and other texts. */
export function termsOf(persons: Pessoa[]): fc.Arbitrary<string> {
  const part = pieceOf(persons.flatMap((p) => [p.apelido, p.nome, ...(p.stack ?? [])]));
  return fc.oneof(
    part,
    text(4),
    fc.tuple(part, part).map(([a, b]) => a + b),
    part.map((p) => p.toUpperCase()),
  );
}

/**
 * Expects that a search found only persons of `there` that contain the term, each once, and of `stored` all such persons
 * or 50. `stored`: persons with a 201 before the search. `there`: persons sent before its answer.
 */
export function expectFound(
  found: { apelido: string }[],
  term: string,
  stored: Pessoa[],
  there: Pessoa[] = stored,
) {
  const holders = (persons: Pessoa[]) =>
    persons.filter((each) => holds(each, term)).map(({ apelido }) => apelido);
  const must = holders(stored);
  const may = new Set(there === stored ? must : holders(there));
  const names = found.map(({ apelido }) => apelido);
  const has = new Set(names);
  expect({
    term,
    missed: names.length === maxFound ? [] : must.filter((name) => !has.has(name)),
    wrong: names.filter((name) => !may.has(name)),
    repeated: names.length - has.size,
    tooMany: names.length > maxFound,
  }).toEqual({ term, missed: [], wrong: [], repeated: 0, tooMany: false });
}

/** Expects that the instances find exactly these persons by `count` terms and by the apelidos of the last 100. */
export async function expectExact(
  instances: Pick<Registry, "search">[],
  persons: Pessoa[],
  count: number,
): Promise<void> {
  const apelidos = persons.slice(-100).map(({ apelido }) => apelido);
  const left = [...fc.sample(termsOf(persons), count), ...apelidos].values();
  const searching = async () => {
    for (const term of left) {
      const [first = [], ...others] = await Promise.all(instances.map(({ search }) => search(term)));
      expectFound(first, term, persons);
      // With fewer than 50 matches there is only one right answer.
      const names = (found: { apelido: string }[]) => found.map(({ apelido }) => apelido).toSorted();
      for (const other of others) {
        if (first.length < maxFound) expect(names(other)).toEqual(names(first));
        else expectFound(other, term, persons);
      }
    }
  };
  await Promise.all(Array.from({ length: 8 }, searching));
}
