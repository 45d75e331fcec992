import { expect, test } from "bun:test";
import { type BatchOptions, batches, Unavailable } from "../../database/batch.ts";

const options: BatchOptions = {
  connections: 1,
  batchSize: 3,
  queueLimit: 10,
  timeoutMs: 60_000,
  onAbandoned() {},
};

/** A queue, and its statements, which the test ends. */
function queue(changes: Partial<BatchOptions> = {}) {
  const started: { items: number[]; answer: (error?: Error) => void }[] = [];
  const run = (items: number[]) => {
    const { promise, resolve, reject } = Promise.withResolvers<string[]>();
    const answer = (error?: Error) => (error ? reject(error) : resolve(items.map((item) => `#${item}`)));
    started.push({ items, answer });
    return promise;
  };
  return { started, run, ...batches(run, { ...options, ...changes }) };
}

const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

test("a single item is sent at once; items that arrive meanwhile are sent together, in order, up to the batch size", async () => {
  const { started, submit, stats } = queue();
  const answers = [1, 2, 3, 4, 5].map(submit);
  expect(started.map(({ items }) => items)).toEqual([[1]]);
  expect(stats()).toMatchObject({
    waiting: 4,
    inFlight: 1,
    statements: 1,
    items: 1,
    connections: 1,
    busy: 1,
  });
  started[0]?.answer();
  await tick();
  expect(started[1]?.items).toEqual([2, 3, 4]);
  started[1]?.answer();
  await tick();
  expect(started[2]?.items).toEqual([5]);
  started[2]?.answer();
  expect(await Promise.all(answers)).toEqual(["#1", "#2", "#3", "#4", "#5"]);
  await tick();
  expect(stats()).toMatchObject({ waiting: 0, inFlight: 0, oldestMs: 0, statements: 3, items: 5, busy: 0 });
});

test("items that arrive more often than windowMs wait that long for a larger batch", async () => {
  const sizes: number[] = [];
  const run = async (items: number[]) => {
    sizes.push(items.length);
    return items;
  };
  const { submit } = batches(run, {
    ...options,
    connections: 100,
    batchSize: 100,
    queueLimit: 100,
    windowMs: 20,
  });
  const answers = Array.from({ length: 60 }, (_, i) => submit(i));
  const atOnce = sizes.length; // the rate was not known yet
  expect(atOnce).toBeGreaterThan(0);
  expect(await Promise.all(answers)).toHaveLength(60);
  expect(sizes).toEqual([...new Array<number>(atOnce).fill(1), 60 - atOnce]);
});

test.each([1, 20, 100])("a single item does not wait with a windowMs of %d", async (windowMs) => {
  const { started, submit } = queue({ windowMs });
  const answer = submit(1);
  expect(started).toHaveLength(1);
  started[0]?.answer();
  expect(await answer).toBe("#1");
});

test("a full batch is sent without waiting", async () => {
  const { started, submit, stats } = queue({ connections: 100, queueLimit: 100, windowMs: 60_000 });
  const answers = [submit(0)];
  while (started.every(({ items }) => items.length < options.batchSize)) answers.push(submit(answers.length));
  expect(stats().waiting).toBe(0);
  for (const { answer } of started) answer();
  expect(await Promise.all(answers)).toHaveLength(answers.length);
});

test("there are as many statements in flight as connections", async () => {
  const { started, submit } = queue({ connections: 2 });
  const answers = [1, 2, 3].map(submit);
  expect(started.map(({ items }) => items)).toEqual([[1], [2]]);
  for (const _ of answers) {
    for (const { answer } of started) answer();
    await tick();
  }
  expect(await Promise.all(answers)).toEqual(["#1", "#2", "#3"]);
});

test("a statement that fails rejects its own items alone, and the next one is sent", async () => {
  const { started, submit } = queue();
  const [first, second] = [submit(1), submit(2)];
  started[0]?.answer(new Error("lost"));
  await expect(first).rejects.toThrow("lost");
  started[1]?.answer();
  expect(await second).toBe("#2");
});

test("an item beyond the queue limit is rejected at once", async () => {
  const { started, submit } = queue({ queueLimit: 1 });
  const [first, second] = [submit(1), submit(2)];
  await expect(submit(3)).rejects.toBeInstanceOf(Unavailable);
  started[0]?.answer();
  await first;
  await tick();
  started[1]?.answer();
  expect(await second).toBe("#2");
});

test("an item that would miss its deadline at the present rate is rejected at once; all others are answered", async () => {
  let takesMs = 10;
  const run = async (items: number[]) => {
    if (takesMs > 0) await Bun.sleep(takesMs);
    return items;
  };
  const { submit } = batches(run, { ...options, batchSize: 1, queueLimit: 100_000 });
  for (let i = 0; i < 64; i++) await submit(i);
  takesMs = 0;
  let refused = 0;
  const answers = Array.from({ length: 10_000 }, (_, i) => submit(i).catch(() => refused++));
  await tick();
  const atOnce = refused;
  expect(atOnce).toBeGreaterThan(0);
  expect(atOnce).toBeLessThan(answers.length);
  await Promise.all(answers);
  expect(refused).toBe(atOnce);
});

test("the smaller the share of the deadline that an item may wait, the more of 120 slow items are rejected at once", async () => {
  let takesMs = 40;
  const run = async (items: number[]) => {
    if (takesMs > 0) await Bun.sleep(takesMs);
    return items;
  };
  const queues = [1 / 4, 1 / 2, Infinity].map((maxWaitShare) =>
    batches(run, { ...options, batchSize: 1, queueLimit: 1000, timeoutMs: 4000, maxWaitShare }),
  );
  for (let i = 0; i < 64; i++) await Promise.all(queues.map(({ submit }) => submit(i)));
  takesMs = 0;
  const rejected = queues.map(async ({ submit }) => {
    const outcomes = await Promise.allSettled(Array.from({ length: 120 }, (_, i) => submit(i)));
    return outcomes.filter(({ status }) => status === "rejected").length;
  });
  const [quarter = 0, half = 0, all] = await Promise.all(rejected);
  expect(all).toBe(0);
  expect(half).toBeGreaterThan(0);
  expect(quarter).toBeGreaterThan(half);
  expect(quarter).toBeLessThan(120);
});

test("one slow statement is a pause, and no item is rejected because of it", async () => {
  let takesMs = 0;
  const run = async (items: number[]) => {
    if (takesMs > 0) await Bun.sleep(takesMs);
    takesMs = 0;
    return items;
  };
  const { submit } = batches(run, {
    ...options,
    connections: 2,
    batchSize: 1,
    queueLimit: 1000,
    timeoutMs: 1500,
  });
  for (let i = 0; i < 64; i++) await submit(i);
  takesMs = 800;
  await submit(0);
  const answers = Array.from({ length: 200 }, (_, i) => submit(i));
  expect(await Promise.all(answers)).toHaveLength(200);
});

test("an item past its deadline is rejected, in flight or queued, and is not sent later", async () => {
  const { started, submit } = queue({ timeoutMs: 1 });
  const outcomes = await Promise.allSettled([submit(1), submit(2)]); // in flight, and queued
  for (const outcome of outcomes) expect(outcome).toMatchObject({ reason: expect.any(Unavailable) });
  started[0]?.answer();
  await tick();
  expect(started).toHaveLength(1);
});

test("a slow statement is answered while the server works on it, and so is the item behind it", async () => {
  const timeoutMs = 80;
  const began = performance.now();
  const isWorking = async () => {
    if (performance.now() - began > 1.5 * timeoutMs) started[0]?.answer();
    return true;
  };
  const { started, submit } = queue({ timeoutMs, isWorking });
  const [slow, behind] = [submit(1), submit(2)];
  expect(await slow).toBe("#1");
  started[1]?.answer();
  expect(await behind).toBe("#2");
});

test("a pause of this process beyond the deadline rejects no item while the server works on it", async () => {
  let asked = 0;
  const isWorking = async () => {
    asked++;
    if (asked === 1) setTimeout(() => Bun.sleepSync(700), 20); // from 770 to 1470 ms
    if (asked === 3) started[0]?.answer();
    return true;
  };
  const { started, submit } = queue({ timeoutMs: 1000, isWorking });
  expect(await submit(1)).toBe("#1");
});

test.each<[title: string, answer: () => Promise<boolean>]>([
  ["works on it, but twice the deadline has passed", () => Promise.resolve(true)],
  ["does not work on it", () => Promise.resolve(false)],
  ["cannot be reached", () => Promise.reject(new Error("away"))],
  ["does not answer the ping either", () => new Promise(() => {})],
])("an item past its deadline is rejected when the server %s", async (_, answer) => {
  let asked = 0;
  const isWorking = () => {
    asked++;
    return answer();
  };
  const { started, submit } = queue({ timeoutMs: 80, isWorking });
  await expect(submit(1)).rejects.toBeInstanceOf(Unavailable);
  expect(asked).toBeGreaterThan(0);
  started[0]?.answer();
});

test("a statement whose answer was lost is abandoned, before the item behind it passes its deadline", async () => {
  let stuck = 0;
  const isWorking = () => Promise.resolve(false);
  const { started, submit, stats } = queue({ timeoutMs: 2000, isWorking, onAbandoned: () => stuck++ });
  const lost = submit(1);
  const behind = submit(2);
  await expect(lost).rejects.toBeInstanceOf(Unavailable);
  await tick();
  expect(started[1]?.items).toEqual([2]);
  started[1]?.answer();
  expect(await behind).toBe("#2");
  expect([stuck, stats().busy]).toEqual([1, 0]);
});

test("a statement that was just sent is not abandoned, because the server may not have it yet", async () => {
  const timeoutMs = 200;
  let stuck = 0;
  const isWorking = async () => {
    if (started.length === 1) started[0]?.answer(); // shortly before the deadline of both items
    await tick();
    return false;
  };
  const { started, submit } = queue({ timeoutMs, isWorking, onAbandoned: () => stuck++ });
  const first = submit(1);
  const second = submit(2);
  expect(await first).toBe("#1");
  await tick();
  started[1]?.answer();
  expect(await second).toBe("#2");
  expect(stuck).toBe(0);
});

test("the connection of a statement that never settles is used again, and a late answer changes nothing", async () => {
  const { started, run } = queue();
  let stuck = 0;
  const answering = (items: number[]) => {
    const answers = run(items);
    if (started.length > 1) started.at(-1)?.answer();
    return answers;
  };
  const { submit, stats } = batches(answering, { ...options, timeoutMs: 20, onAbandoned: () => stuck++ });
  await expect(submit(1)).rejects.toBeInstanceOf(Unavailable);
  const next = () => submit(2).catch((error: Error) => error);
  let answer = await next();
  while (answer instanceof Unavailable) answer = await next();
  expect(answer).toBe("#2");
  started[0]?.answer();
  await tick();
  expect([stuck, stats().busy, started.length]).toEqual([1, 0, 2]);
});
