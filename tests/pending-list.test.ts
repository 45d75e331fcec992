import { expect, test } from "bun:test";
import { mergeEvery, mergeSchedule } from "../search/pending-list.ts";

test("a merge begins after each 8,192 persons", () => {
  const merges: number[] = [];
  let persons = 0;
  const { stored, stop } = mergeSchedule(() => merges.push(persons));
  while (persons < 3 * mergeEvery) stored(++persons && 1);
  stop();
  expect(merges).toEqual([1, 2, 3].map((times) => times * mergeEvery));
});

test("or when no more persons are stored", async () => {
  const merged = Promise.withResolvers<void>();
  let merges = 0;
  const { stored } = mergeSchedule(() => {
    merges++;
    merged.resolve();
  }, 1);
  stored(1);
  stored(1);
  expect(merges).toBe(0);
  await merged.promise;
  expect(merges).toBe(1);
});
