import { expect, test } from "bun:test";
import { Unavailable } from "../../database/batch.ts";
import { watched } from "../../database/pool.ts";

test("a look that is under way when the work ends is the last one", async () => {
  const work = Promise.withResolvers<string>();
  const answer = Promise.withResolvers<boolean>();
  const asked = Promise.withResolvers<void>();
  let looks = 0;
  const isWorking = () => {
    looks++;
    asked.resolve();
    return answer.promise;
  };
  const watching = watched(work.promise, isWorking, 1);
  await asked.promise;
  work.resolve("done");
  expect(await watching).toBe("done");
  answer.resolve(true);
  const later = Promise.withResolvers<void>();
  setTimeout(later.resolve, 20); // when the next one would have been
  await later.promise;
  expect(looks).toBe(1);
});

test.each([
  ["the server has nothing to do for it", 1, () => Promise.resolve(false)],
  ["the server cannot be asked twice in a row", 2, () => Promise.reject(new Error("away"))],
])("work is given up when %s", async (_, expected, answer) => {
  let looks = 0;
  const isWorking = () => {
    looks++;
    return answer();
  };
  await expect(watched(new Promise(() => {}), isWorking, 1)).rejects.toBeInstanceOf(Unavailable);
  expect(looks).toBe(expected);
});
