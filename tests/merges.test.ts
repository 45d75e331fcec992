import { expect, test } from "bun:test";
import { manySearches, mergeEvery, mergeLittleSearched, merges, mergeUnsearched } from "../merges.ts";

/** The numbers of the persons with whom a merge begins, of three times as many as should be. */
function begun(every: number, searches: number): number[] {
  const numbers: number[] = [];
  let n = 0;
  const { created, searched, stop } = merges(() => numbers.push(n));
  while (n < 3 * every) {
    created(++n);
    // As long as no merge has begun it is not known that nobody searches.
    if (n % every === every - 1) for (let i = 0; i < searches; i++) searched();
  }
  stop();
  return numbers;
}

test.each([
  ["while many search", mergeEvery, manySearches],
  ["while few search", mergeLittleSearched, 1],
])("%s, a merge begins with each %ith person", (_, every, searches) => {
  expect(begun(every, searches)).toEqual([1, 2, 3].map((times) => times * every));
});

test(`while nobody does, with each ${mergeUnsearched}th`, () => {
  expect(begun(mergeUnsearched, 0)).toEqual([
    mergeLittleSearched, // who searched before is not known
    ...[1, 2, 3].map((times) => times * mergeUnsearched),
  ]);
});

test("or at once with the first search after many", () => {
  let count = 0;
  const { created, searched, stop } = merges(() => count++);
  const create = (from: number, to: number) => {
    for (let n = from; n <= to; n++) created(n);
  };
  create(1, mergeLittleSearched); // who searched before is not known
  expect(count).toBe(1);
  create(mergeLittleSearched + 1, 3 * mergeLittleSearched);
  expect(count).toBe(1);
  searched();
  searched();
  expect(count).toBe(2);
  stop();
});

// A huge person has a number far above those of the persons before and after it (db.ts).
test.each([
  Number.MAX_SAFE_INTEGER,
  2 ** 53 - mergeUnsearched,
  2 ** 63,
  10 * mergeUnsearched,
  0,
  -1,
  Number.NaN,
])("the number %d among others neither begins a merge nor stops the following ones", (strange) => {
  const numbers: number[] = [];
  let n = 0;
  const { created, searched, stop } = merges(() => numbers.push(n));
  const createUntil = (end: number) => {
    while (n < end) {
      if (n % mergeEvery >= mergeEvery - 3) created(strange);
      created(++n);
    }
  };
  createUntil(mergeLittleSearched);
  created(strange);
  searched(); // no reason to begin one: few wait
  createUntil(2 * mergeLittleSearched);
  createUntil(4 * mergeLittleSearched); // where nobody searches
  searched(); // the first one after many creates
  expect(numbers).toEqual([1, 2, 4].map((times) => times * mergeLittleSearched));
  stop();
});

test("after a jump, up or down, merges begin again from the second number on", () => {
  const numbers: number[] = [];
  let n = 0;
  const { created, stop } = merges(() => numbers.push(n));
  for (const start of [100 * mergeUnsearched, 7 * mergeUnsearched]) {
    n = start - 2;
    while (n < start) created(++n);
  }
  expect(numbers).toEqual([100 * mergeUnsearched, 7 * mergeUnsearched]);
  stop();
});

test("or when no more come", async () => {
  const merged = Promise.withResolvers<void>();
  let count = 0;
  const { created } = merges(() => {
    count++;
    merged.resolve();
  }, 1);
  created(mergeEvery);
  created(3 * mergeEvery);
  expect(count).toBe(0);
  await merged.promise;
});
