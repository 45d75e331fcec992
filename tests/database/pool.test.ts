import { expect, test } from "bun:test";
import { Unavailable } from "../../database/batch.ts";
import { watched } from "../../database/pool.ts";

test("no ping follows the end of the work", async () => {
  const work = Promise.withResolvers<string>();
  const answer = Promise.withResolvers<boolean>();
  const asked = Promise.withResolvers<void>();
  let pings = 0;
  const isWorking = () => {
    pings++;
    asked.resolve();
    return answer.promise;
  };
  const watching = watched(work.promise, isWorking, 1);
  await asked.promise;
  work.resolve("done");
  expect(await watching).toBe("done");
  answer.resolve(true);
  const later = Promise.withResolvers<void>();
  setTimeout(later.resolve, 20); // longer than the time to the next ping
  await later.promise;
  expect(pings).toBe(1);
});

test.each([
  ["the server does not work on it", 1, () => Promise.resolve(false)],
  ["two pings in a row fail", 2, () => Promise.reject(new Error("away"))],
])("work is abandoned when %s", async (_, expected, answer) => {
  let pings = 0;
  const isWorking = () => {
    pings++;
    return answer();
  };
  await expect(watched(new Promise(() => {}), isWorking, 1)).rejects.toBeInstanceOf(Unavailable);
  expect(pings).toBe(expected);
});
