import { expect, test } from "bun:test";
import { mergeEvery, merges, mergeUnsearched } from "../merges.ts";

test(`while somebody searches, a merge begins with each ${mergeEvery}th person`, () => {
  const begun: number[] = [];
  let n = 0;
  const { created, searched } = merges(() => begun.push(n));
  for (n = 1; n <= 3 * mergeEvery; n++) {
    created(n);
    if (n % 1000 === 0) searched();
  }
  expect(begun).toEqual([1, 2, 3].map((times) => times * mergeEvery));
});

test(`while nobody does, with each ${mergeUnsearched}th`, () => {
  const begun: number[] = [];
  let n = mergeEvery;
  const { created, stop } = merges(() => begun.push(n));
  created(n); // the first one: who searched before is not known
  while (n < 2 * mergeUnsearched) created(++n);
  expect(begun).toEqual([mergeEvery, mergeUnsearched, 2 * mergeUnsearched]);
  stop();
});

test("or when no more come", async () => {
  const begun = Promise.withResolvers<void>();
  let count = 0;
  const { created } = merges(() => ++count === 2 && begun.resolve(), 1);
  created(mergeEvery);
  created(2 * mergeEvery);
  created(3 * mergeEvery);
  expect(count).toBe(1);
  await begun.promise;
});
