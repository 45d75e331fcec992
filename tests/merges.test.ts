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
