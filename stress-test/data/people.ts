import { fakerEL, fakerJA, fakerPL, fakerPT_BR as fakerPT, fakerRU } from "@faker-js/faker";
import { somebody } from "../../tools/seed.ts";
import { generate, randomFrom } from "./payloads.ts";
import { type Pessoa, readPessoa } from "./reference-contract.ts";

const abroad = [fakerEL, fakerJA, fakerPL, fakerRU];
const foreignNameEvery = 500; // Brazilians
const chunk = 5000;

/**
 * Persons without end, with distinct apelidos. Every second one is in the contest's distribution (random letters), the
 * others are fictitious Brazilians. One name in a thousand is foreign. The same seed gives the same sequence.
 */
export function* people(seed: number): Generator<Pessoa, never> {
  for (const [index, faker] of [fakerPT, ...abroad].entries()) faker.seed(seed + index);
  const taken = new Set<string>();
  let brazilians = 0;
  for (let part = 0; ; part++) {
    for (const { payload } of generate((seed + part) % 2 ** 32, chunk, 0).rows) {
      const fromContest = readPessoa(payload);
      if (typeof fromContest !== "object") continue;
      const brazilian = somebody();
      brazilians++;
      if (brazilians % foreignNameEvery === 0) {
        const faker = abroad[(brazilians / foreignNameEvery) % abroad.length] as typeof fakerPT;
        brazilian.nome = faker.person.fullName().slice(0, 100);
      }
      for (const person of [fromContest, brazilian]) {
        if (taken.has(person.apelido)) continue;
        taken.add(person.apelido);
        yield person;
      }
    }
  }
}

/** A sample and counts of all added persons, from which the right answer to a search is known. */
export type Crowd = {
  add(person: Pessoa): void;
  size(): number;
  /** A uniform sample. */
  sample: readonly Pessoa[];
  /** Letters, or pairs of letters, in at most 20 names, with the number of these names. */
  rare(codePoints: 1 | 2): [term: string, persons: number][];
};

const sampleSize = 20_000;
const fewPersons = 20;
// Letters that are in foreign names only: neither Portuguese nor the contest's.
const foreign = /[^\0-\x7fáàâãéêíóôõúüç]/u;
const letters = /^\p{L}+$/u;

export function crowd(seed: number): Crowd {
  const random = randomFrom(seed);
  const sample: Pessoa[] = [];
  const holders = new Map<string, number>();
  let size = 0;
  return {
    add(person) {
      size++;
      if (sample.length < sampleSize) sample.push(person);
      else {
        const place = random.int(0, size - 1);
        if (place < sampleSize) sample[place] = person;
      }
      const nome = person.nome.toLowerCase();
      if (!foreign.test(nome)) return;
      const characters = [...nome];
      const terms = characters.flatMap((character, index) => [
        character,
        character + (characters[index + 1] ?? ""),
      ]);
      for (const term of new Set(terms)) {
        if (foreign.test(term) && letters.test(term)) holders.set(term, (holders.get(term) ?? 0) + 1);
      }
    },
    size: () => size,
    sample,
    rare: (codePoints) =>
      [...holders].filter(([term, persons]) => persons <= fewPersons && [...term].length === codePoints),
  };
}

/** A search term, with the number of hits and the apelido of one hit if they are known. */
export type Search = { term: string; hits?: number; finds?: string };

const maxHits = 50;
const commonWords = "java python postgres typescript silva santos oliveira maria carlos moreira".split(" ");
const commonLetters = [..."aeiorsn"];

/** For each class of terms, a function that makes the next term for the persons in `crowd`. */
export function searches(crowd: Crowd, seed: number): Record<string, () => Search> {
  const random = randomFrom(seed);
  const somebody = () => random.pick(crowd.sample);
  const contest = generate(seed, 0, 5000).terms.filter((term) => term.length >= 6);
  const accented = crowd.sample.flatMap(({ nome }) =>
    nome.split(" ").filter((word) => /[áâãéêíóôõúç]/.test(word)),
  );
  const surnames = crowd.sample.flatMap(({ nome }) => nome.match(/(?<= )\p{L}{4,12}$/u)?.[0] ?? []);
  const piece = (codePoints: number): Search => {
    const { apelido, nome, stack } = somebody();
    const text = [...random.pick([apelido, nome, ...(stack ?? [])])];
    if (text.length < codePoints) return piece(codePoints);
    const from = random.int(0, text.length - codePoints);
    return { term: text.slice(from, from + codePoints).join("") };
  };
  const rare = (codePoints: 1 | 2) => {
    let all: ReturnType<Crowd["rare"]> | undefined; // at the first call
    return () => {
      all ??= crowd.rare(codePoints);
      const [term, hits] = random.pick(all);
      return { term, hits };
    };
  };
  return {
    "long random": () => ({ term: random.pick(contest) }),
    "whole apelido": () => {
      const { apelido } = somebody();
      return apelido.length < 8 ? { term: apelido } : { term: apelido, finds: apelido };
    },
    "common word": () => ({ term: random.pick(commonWords) }),
    accents: () => ({ term: random.pick(accented) }),
    // Both parts are common, but never together: no name begins with a language.
    "no hit": () => ({ term: `python${random.pick(surnames).toLowerCase()}`, hits: 0 }),
    "one common letter": () => ({ term: random.pick(commonLetters), hits: maxHits }),
    "one rare letter": rare(1),
    "two rare letters": rare(2),
    "1 code point": () => piece(1),
    "2 code points": () => piece(2),
    "3 code points": () => piece(3),
  };
}
