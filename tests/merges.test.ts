import { expect, test } from "bun:test";
import { manySearches, mergeEvery, mergeLittleSearched, merges, mergeUnsearched } from "../search/merges.ts";

/** After how many persons a merge begins, of three times as many as should be. */
function begun(every: number, searches: number): number[] {
  const numbers: number[] = [];
  let n = 0;
  const { stored, searched, stop } = merges(() => numbers.push(n));
  while (n < 3 * every) {
    n++;
    stored(1);
    // As long as no merge has begun it is not known that nobody searches.
    if (n % every === every - 1) for (let i = 0; i < searches; i++) searched();
  }
  stop();
  return numbers;
}

test("while many search, a merge begins after each few persons", () => {
  expect(begun(mergeEvery, manySearches)).toEqual([1, 2, 3].map((times) => times * mergeEvery));
});

test("while few search, after each twice as many", () => {
  expect(begun(mergeLittleSearched, 1)).toEqual([1, 2, 3].map((times) => times * mergeLittleSearched));
});

test("while nobody does, after each great number", () => {
  expect(begun(mergeUnsearched, 0)).toEqual([
    mergeLittleSearched, // whether somebody searched before is not known
    ...[1, 2].map((times) => mergeLittleSearched + times * mergeUnsearched),
  ]);
});

test("or at once with the first search after many persons", () => {
  let count = 0;
  const { stored, searched, stop } = merges(() => count++);
  stored(mergeLittleSearched); // whether somebody searched before is not known
  expect(count).toBe(1);
  stored(2 * mergeLittleSearched);
  expect(count).toBe(1);
  searched();
  searched();
  expect(count).toBe(2);
  stop();
});

test("or when no more come", async () => {
  const merged = Promise.withResolvers<void>();
  let count = 0;
  const { stored } = merges(() => {
    count++;
    merged.resolve();
  }, 1);
  stored(1);
  stored(1);
  expect(count).toBe(0);
  await merged.promise;
  expect(count).toBe(1);
});
