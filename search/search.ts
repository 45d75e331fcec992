import type { Pessoa } from "../contract/pessoa.ts";
import type { Searchable } from "../database/inserts.ts";
import type { Query } from "../database/pool.ts";
import { counter } from "./bounded-counter.ts";
import { currentCondition, openFeed } from "./feed.ts";
import { encode, isShort, lowerCased, searchable } from "./index-text.ts";
import { maxFound, maxInMemory, maxMemoryBytes, maxPersonBytes } from "./limits.ts";
import { elementsKnown, type Hit, openMemory, placesOf } from "./memory.ts";
import { mergeSchedule } from "./pending-list.ts";
import { trigramSample } from "./rare-trigrams.ts";
import { shortTerms } from "./short-terms.ts";

/*
 * How a term finds a person.
 *
 * Every instance has the first 50,000 persons in memory: their fields in lower case, as UTF-8 (memory.ts). A search
 * scans these bytes. With fewer than 50 matches it also asks for the persons that any instance has stored since
 * (feed.ts), so it finds every person whose 201 was sent. Their rows have no `busca`, only an index of transaction
 * numbers.
 *
 * Later and long persons are in a GIN index of trigrams over `busca`, which spells their fields in letters
 * (index-text.ts). A search asks for the rarest trigrams of its term (rare-trigrams.ts). Instances merge the index's
 * pending list (pending-list.ts). Terms of one and two characters have no trigram: a table has up to 50 persons for
 * each (short-terms.ts).
 *
 * Any 50 matches are a correct answer, and persons never change. So a term that 50 persons in memory have is neither
 * stored nor searched in the index.
 */

/** Short terms of persons, a JSON object by id. */
export const insertTermsStatement = `
  insert into short_terms (term, id)
  select term, id::uuid from json_each($1) as person (id, terms), json_array_elements_text(terms) as term`;
const shortTermsKnown = 100_000;
const sampleSize = 1000; // texts read at the start
const learnOneIn = 64;
const refreshEvery = 200; // creates of this instance; bounds what a search loads

export type IndexQuery = { statement: string; parameters: string[] };
/** JSON texts of persons by id. */
type Texts = Map<string, string>;

type SearchOptions = {
  maxPersons?: number | undefined;
  query: Query;
  /** Runs `next` alone: not before this call, and not while another one runs. */
  inTurn(next: () => Promise<boolean>): Promise<boolean>;
  cached(id: string): string | undefined;
  /** Removed persons are left out. */
  read(hits: Hit[]): Promise<Texts>;
  /** `isCurrent`: none of the rows is empty. */
  searchIndex(asked: IndexQuery): Promise<{ texts: Texts; isCurrent: boolean }>;
  merge(): void;
};

export type Search = {
  /**
   * Resolves when the first persons are in memory; the others follow in the background. On Citus all persons are in
   * the index, because transactions of different workers have no common order.
   */
  load(query: Query, isCitus: boolean): Promise<void>;
  /** `bytes`: of its fields. */
  searchableOf(pessoa: Pessoa, bytes: number): Searchable;
  neededTerms(fields: string[]): string[];
  /** Call after a commit, with the stored persons and short terms. */
  stored(persons: Searchable[], terms: string[]): void;
  find(term: string): Promise<string[]>;
  stats(): { persons: number; bytes: number };
  close(): void;
};

export const columns = "id, apelido, nome, nascimento, stack";
/** `$1`: a term, `$2`: its pattern of trigrams. */
export const textStatement = `select ${columns} from pessoas where busca like $2 and strpos(busca, $1::text) > 0 limit ${maxFound}`;
/** `$1`: a term of one or two characters. */
export const shortStatement = `select ${columns} from short_terms join pessoas using (id) where term = $1 limit ${maxFound}`;
/**
 * `checked` adds an empty row unless the memory is current, and `withHits` also reads hits in memory, by ctid and id.
 * `count`: number of parameters of `plain`.
 */
const inIndex = (plain: string, count: number) => {
  const checked = `
  (${plain}) union all select null, null, null, null, null where not (${currentCondition(count + 1)})`;
  const withHits = `${checked}
  union all select ${columns} from pessoas where ctid = any ($${count + 3}::tid[]) and id = any ($${count + 4}::uuid[])`;
  return { plain, checked, withHits };
};
const textInIndex = inIndex(textStatement, 2);
const shortInIndex = inIndex(shortStatement, 1);
export const completeTermsStatement = `select term from short_terms group by term having count(*) >= ${maxFound} limit ${shortTermsKnown}`;
const sampleStatement = `select left(busca, 1000) as text from pessoas where busca is not null limit ${sampleSize}`;

/** `searchableOf` for rows that no instance stores. `stacks`: of the persons in memory already. */
export function searchableInBulk(
  stacks: Iterable<string[] | null>,
  maxPersons = maxInMemory,
): Search["searchableOf"] {
  const elements = counter<string>(elementsKnown);
  let persons = 0;
  const remember = (stack: string[] | null) => {
    for (const element of new Set(stack)) elements.add(element);
    persons++;
  };
  for (const stack of stacks) remember(stack);
  return (pessoa, bytes) => {
    if (bytes > maxPersonBytes || persons >= maxPersons) return searchable(pessoa, elements.isFull);
    remember(pessoa.stack);
    return { text: null, fields: [] };
  };
}

export function openSearch(options: SearchOptions): Search {
  const { query, inTurn, cached, read, searchIndex, merge } = options;
  const memory = openMemory();
  const feed = openFeed(memory, query);
  const short = shortTerms(shortTermsKnown);
  const trigrams = trigramSample();
  const merges = mergeSchedule(merge);
  let maxPersons = options.maxPersons ?? maxInMemory;
  let created = 0; // since the last refresh
  let indexed = 0;

  const hasRoom = () => feed.isLoaded() && memory.persons() < maxPersons && memory.bytes() < maxMemoryBytes;
  const isAnsweredByMemory = (term: string) => memory.find(term).length >= maxFound;

  /** Resolves when all persons stored before the call are in memory. */
  async function refresh() {
    while (!(await inTurn(feed.next)));
  }

  return {
    async load(query, isCitus) {
      const terms = await query<{ term: string }>(completeTermsStatement, []);
      short.complete(terms.map(({ term }) => term));
      for (const { text } of await query<{ text: string }>(sampleStatement, [])) trigrams.learn(text);
      if (isCitus) maxPersons = 0;
      else if (!(await inTurn(feed.next))) refresh().catch(() => {}); // the next search continues it
    },
    searchableOf(pessoa, bytes) {
      if (bytes <= maxPersonBytes && hasRoom()) return { text: null, fields: [] };
      return searchable(pessoa, memory.isCommon);
    },
    neededTerms: (fields) => short.needed(fields, isAnsweredByMemory),
    stored(persons, terms) {
      short.stored(terms);
      const texts = persons.flatMap(({ text }) => text ?? []);
      if (texts.length > 0) merges.stored(texts.length);
      for (const text of texts) if (indexed++ % learnOneIn === 0) trigrams.learn(text);
      created += persons.length;
      if (maxPersons === 0 || created < refreshEvery) return;
      created = 0;
      refresh().catch(() => {});
    },
    find,
    stats: () => ({ persons: memory.persons(), bytes: memory.bytes() }),
    close: () => merges.stop(),
  };

  async function find(given: string): Promise<string[]> {
    const term = lowerCased(given);
    if (term === undefined) return [];
    const [end, mark, hits] = [memory.end(), feed.mark(), memory.find(term)];
    const found: Texts = new Map();
    const addNew = () => refresh().then(() => addRead(found, memory.find(term, end)));
    const isIndexed = maxPersons === 0 || feed.hasIndexed();
    const isFull = hits.length >= maxFound;
    const known = isFull || !isIndexed ? addRead(found, hits) : undefined;
    if (isFull) await known;
    // 50 matches are a full answer. Fewer of them are found if persons are gone, as in another database.
    if (found.size < maxFound) {
      if (isIndexed) {
        const isCurrent = await addIndexed(found, term, mark, isFull ? [] : hits);
        if (!isCurrent && found.size < maxFound) await addNew();
      } else {
        await Promise.all([known, addNew()]);
      }
      if (memory.end().emptied !== end.emptied) return await find(given);
      if (!isIndexed && feed.hasIndexed() && found.size < maxFound) await addIndexed(found, term, mark, []);
    }
    return [...found.values()].slice(0, maxFound);
  }

  /** Adds matches in the index, and `hits`. False: some persons are new since `mark`. */
  async function addIndexed(found: Texts, term: string, mark: string[], hits: Hit[]): Promise<boolean> {
    const others = addCached(found, hits);
    const { texts, isCurrent } = await findInIndex(term, mark, others);
    for (const [id, text] of texts) found.set(id, text);
    const moved = others.filter(({ id }) => !texts.has(id));
    await addRead(found, moved);
    return isCurrent;
  }

  /** On Citus, where no person is in memory, that is always current. */
  async function findInIndex(term: string, mark: string[], hits: Hit[]) {
    const ask = ({ plain, checked, withHits }: typeof textInIndex, parameters: string[]) => {
      if (maxPersons === 0) return searchIndex({ statement: plain, parameters });
      if (hits.length === 0) return searchIndex({ statement: checked, parameters: [...parameters, ...mark] });
      const ids = `{${hits.map(({ id }) => id).join()}}`;
      return searchIndex({
        statement: withHits,
        parameters: [...parameters, ...mark, placesOf(hits), ids],
      });
    };
    if (isShort(term)) return await ask(shortInIndex, [term]);
    merges.searched();
    const text = encode(term);
    return await ask(textInIndex, [text, trigrams.pattern(text)]);
  }

  /** Removed persons are left out. */
  async function addRead(found: Texts, hits: Hit[]): Promise<void> {
    const others = addCached(found, hits);
    if (others.length === 0) return;
    const texts = await read(others);
    for (const { id } of others) {
      const text = texts.get(id);
      if (text !== undefined) found.set(id, text);
    }
  }

  /** The hits that are not cached. */
  function addCached(found: Texts, hits: Hit[]): Hit[] {
    return hits.filter(({ id }) => {
      const text = cached(id);
      if (text !== undefined) found.set(id, text);
      return text === undefined;
    });
  }
}
