import type { Pessoa } from "../contract/pessoa.ts";
import type { Query } from "../database/pool.ts";
import { enough } from "./common.ts";
import { openFeed } from "./feed.ts";
import { type Hit, openMemory } from "./memory.ts";
import { merges } from "./merges.ts";
import { rarity } from "./rarity.ts";
import { shortTerms } from "./short-terms.ts";
import { encode, isShort, lowerCased, searchable } from "./text.ts";

/*
 * How a term finds a person.
 *
 * The first 50,000 persons are in the memory of every instance: their fields in lower case, one after the other, as UTF-8
 * (memory.ts). A search scans these bytes. Unless it finds 50 persons at once, it asks Postgres for those that were stored since
 * the last time, by any instance (feed.ts), so a person is found as soon as their 201 was sent. These persons have no `busca`, and no
 * index is written for a search but a small one of transaction numbers.
 *
 * Later persons, and long ones, are in a GIN index of trigrams over `busca`, their fields written in letters alone (text.ts).
 * GIN keeps new rows in a pending list, which instances merge from time to time (merges.ts). It is asked for the rarest
 * trigrams of a term (rarity.ts). Terms of one and two characters have no trigram: the table `curtos` keeps up to 50 persons
 * for each of them (short-terms.ts).
 *
 * A search answers with any 50 persons who hold the term, and no person ever changes or goes. So what 50 persons in memory hold
 * is never looked for in the index, and need not be in it.
 */

/** Persons that each instance holds in memory, and their texts' bytes, at most; instances that store at once may go a little over. */
export const mostHeld = 50_000;
const mostHeldBytes = 10 * 2 ** 20;
// Longer persons are later ones, so that few cannot fill the memory. The contest's have at most 370.
const longestHeldBytes = 512;
const shortTermsKnown = 100_000;
const sampleSize = 1000;
const learnFromOneIn = 64;
const refreshEvery = 200; // of this instance's own creates, so that no search has to wait for many

export type SearchOptions = {
  /** Persons to hold in memory. */
  held: number;
  /** Runs a statement of a moment. */
  query: Query;
  /** Calls `next` when no other call of it is under way; the call begins after this one. */
  inTurn(next: () => Promise<boolean>): Promise<boolean>;
  /** The JSON texts of these persons, as far as they are still there. */
  read(hits: Hit[]): Promise<string[]>;
  /** The JSON texts of the persons that a statement finds in the index. */
  ask(statement: string, parameters: string[]): Promise<string[]>;
  /** Merges the pending list of the index. */
  merge(): void;
};

/** What is stored of a person for searches: the value of `busca`, and the fields whose short terms want rows. */
export type Searchable = { text: string | null; fields: string[] };

/** What an instance has to know at its start. */
export type Known = {
  /** All persons are in the index: Citus has many clocks of transactions. */
  indexOnly: boolean;
  /** Short terms with rows enough. */
  full: string[];
  /** Some of the texts in the index. */
  texts: string[];
};

export type Search = {
  /** Resolves when the first persons are in memory; the others follow. */
  start(known: Known): Promise<void>;
  /** What to store of a person, whose JSON has so many bytes. */
  searchableOf(pessoa: Pessoa, bytes: number): Searchable;
  /** The short terms of these fields that want rows. */
  wanting(fields: string[]): string[];
  /** These persons are stored by now, and these rows of short terms. */
  stored(persons: Searchable[], terms: string[]): void;
  /** JSON texts of at most 50 persons who hold `term`. */
  find(term: string): Promise<string[]>;
  /** What is in memory. */
  stats(): { persons: number; bytes: number };
  close(): void;
};

export const columns = "id, apelido, nome, nascimento, stack";
const textStatement = `select ${columns} from pessoas where busca like $2 and strpos(busca, $1::text) > 0 limit ${enough}`;
const shortStatement = `select ${columns} from curtos join pessoas using (id) where termo = $1 limit ${enough}`;
/** Short terms that have enough rows, and some of the texts. */
export const fullStatement = `select termo from curtos group by termo having count(*) >= ${enough} limit ${shortTermsKnown}`;
export const textsStatement = `select left(busca, 1000) as text from pessoas where busca is not null limit ${sampleSize}`;

/** For persons who are stored in bulk, past the instances, when `held` are for the memory already. */
export function inBulk(held: number): Search["searchableOf"] {
  let room = mostHeld - held;
  return (pessoa, bytes) =>
    bytes <= longestHeldBytes && room-- > 0 ? { text: null, fields: [] } : searchable(pessoa);
}

export function openSearch({ held, query, inTurn, read, ask, merge }: SearchOptions): Search {
  const memory = openMemory();
  const feed = openFeed(memory, query);
  const short = shortTerms(shortTermsKnown);
  const rare = rarity();
  const merging = merges(merge);
  let room = held;
  let created = 0;
  let learned = 0;

  const hasRoom = () => feed.isLoaded() && memory.persons() < room && memory.bytes() < mostHeldBytes;
  const isAnswered = (term: string) => memory.find(term).length >= enough;

  async function refresh() {
    while (!(await inTurn(feed.next)));
  }

  return {
    async start({ indexOnly, full, texts }) {
      short.full(full);
      for (const text of texts) rare.learn(text);
      if (indexOnly) room = 0;
      else if (!(await inTurn(feed.next))) refresh().catch(() => {}); // the next search goes on with it
    },
    searchableOf(pessoa, bytes) {
      if (bytes <= longestHeldBytes && hasRoom()) return { text: null, fields: [] };
      return searchable(pessoa, memory.isCommon);
    },
    wanting: (fields) => short.wanting(fields, isAnswered),
    stored(persons, terms) {
      short.added(terms);
      const texts = persons.flatMap(({ text }) => text ?? []);
      if (texts.length > 0) merging.stored(texts.length);
      for (const text of texts) if (learned++ % learnFromOneIn === 0) rare.learn(text);
      created += persons.length;
      if (room === 0 || created < refreshEvery) return;
      created = 0;
      refresh().catch(() => {});
    },
    find,
    stats: () => ({ persons: memory.persons(), bytes: memory.bytes() }),
    close: () => merging.stop(),
  };

  async function find(term: string): Promise<string[]> {
    const wanted = lowerCased(term);
    if (wanted === undefined) return [];
    const mark = memory.mark();
    const known = memory.find(wanted);
    const texts = read(known);
    // Any 50 are an answer, whoever is new; unless some are gone.
    if (known.length >= enough && (await texts).length === known.length) return await texts;
    const later = room === 0 || feed.hasLater() ? findLater(wanted) : undefined;
    const [first, second] = await Promise.all([
      texts,
      room === 0 ? [] : refresh().then(() => read(memory.find(wanted, mark))),
      later,
    ]);
    if (memory.mark().emptied !== mark.emptied) return await find(term); // it was another store
    const found = [...new Set([...first, ...second])]; // whoever was added twice has one text
    if (found.length < enough && (later || feed.hasLater()))
      found.push(...(await (later ?? findLater(wanted))));
    return found.slice(0, enough);
  }

  async function findLater(wanted: string): Promise<string[]> {
    if (isShort(wanted)) return await ask(shortStatement, [wanted]);
    merging.searched();
    const text = encode(wanted);
    return await ask(textStatement, [text, rare.pattern(text)]);
  }
}
