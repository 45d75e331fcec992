import { expect, test } from "bun:test";
import { maxPending, maxRead, mergeSchedule } from "../../search/pending-list.ts";

test("without searches a merge begins when the pending list is long", () => {
  const merges: number[] = [];
  let persons = 0;
  const { stored, stop } = mergeSchedule(() => merges.push(persons));
  while (persons < 3 * maxPending) {
    persons++;
    stored(1);
  }
  stop();
  expect(merges).toEqual([1, 2, 3].map((times) => times * maxPending));
});

test.each([1, 100, 5000])(
  "with a search after every %d creates, a merge begins when the searches have read enough pending persons",
  (every) => {
    const reads: number[] = []; // by the searches before each merge
    let [pending, read] = [0, 0];
    const { stored, searched, stop } = mergeSchedule(() => {
      reads.push(read);
      [pending, read] = [0, 0];
    });
    while (reads.length < 3) {
      pending += every;
      stored(every);
      read += pending;
      searched();
    }
    stop();
    for (const each of reads) {
      expect(each).toBeGreaterThanOrEqual(maxRead);
      expect(each).toBeLessThan(maxRead + maxPending);
    }
  },
);

test("a search of an empty list begins no merge", () => {
  let merges = 0;
  const { searched, stop } = mergeSchedule(() => merges++);
  for (let i = 0; i < 1000; i++) searched();
  stop();
  expect(merges).toBe(0);
});

test("a merge begins some time after the last create", async () => {
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
