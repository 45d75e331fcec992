import { expect, test } from "bun:test";
import fc from "fast-check";
import { lru } from "../cache.ts";

const entryBytes = (text: string) => {
  const cache = lru(1_000_000);
  cache.set("key", text);
  return cache.stats().bytes;
};

test("a hit returns the text that was set, a miss undefined, and both are counted", () => {
  const cache = lru(10_000);
  cache.set("a", "text");
  expect([cache.get("a"), cache.get("b"), cache.get("a")]).toEqual(["text", undefined, "text"]);
  expect(cache.stats()).toMatchObject({ hits: 2, misses: 1, entries: 1 });
});

test("peek finds an entry and counts neither a hit nor a miss", () => {
  const cache = lru(10_000);
  cache.set("a", "text");
  expect([cache.peek("a") !== undefined, cache.peek("b") !== undefined]).toEqual([true, false]);
  expect(cache.stats()).toMatchObject({ hits: 0, misses: 0 });
});

test("beyond its capacity the least recently used entry is evicted first", () => {
  const cache = lru(entryBytes("x") * 2);
  cache.set("a", "x");
  cache.set("b", "x");
  cache.get("a");
  cache.set("c", "x");
  expect(["a", "b", "c"].map((key) => cache.peek(key) !== undefined)).toEqual([true, false, true]);
});

test("a text beyond Latin-1 takes two bytes per character, and setting a key again replaces its text", () => {
  expect(entryBytes("ab€") - entryBytes("")).toBe(2 * (entryBytes("abé") - entryBytes("")));
  const cache = lru(10_000);
  cache.set("a", "x".repeat(500));
  cache.set("a", "y");
  expect(cache.get("a")).toBe("y");
  expect(cache.stats()).toMatchObject({ entries: 1, bytes: entryBytes("y") });
});

test("a text larger than the cache is not kept, its key loses the earlier text, and all other entries stay", () => {
  const cache = lru(entryBytes("x") * 3);
  for (const key of ["a", "b", "c"]) cache.set(key, "x");
  cache.set("d", "x".repeat(1000));
  expect(["a", "b", "c", "d"].map((key) => cache.peek(key) !== undefined)).toEqual([true, true, true, false]);
  cache.set("b", "x".repeat(1000));
  expect(["a", "b", "c"].map((key) => cache.peek(key) !== undefined)).toEqual([true, false, true]);
  expect(cache.get("b")).toBeUndefined();
  expect(cache.stats()).toMatchObject({ entries: 2, bytes: 2 * entryBytes("x") });
});

test("a text exactly as large as the cache is kept, and a byte more is not", () => {
  const cache = lru(entryBytes("xy"));
  cache.set("a", "xy");
  expect(cache.get("a")).toBe("xy");
  cache.set("b", "xyz");
  expect([cache.peek("a") !== undefined, cache.peek("b") !== undefined]).toEqual([true, false]);
});

test.each([0, -1, 1.5, Number.NaN, Infinity])("rejects a capacity of %d bytes", (bytes) => {
  expect(() => lru(bytes)).toThrow(RangeError);
});

test("behaves like a list ordered by use, after any sequence of gets and sets", () => {
  const key = fc.constantFrom("a", "b", "c", "d", "e");
  const step = fc.oneof(
    fc.record({ get: key }),
    fc.record({ set: key, text: fc.string({ unit: "grapheme", maxLength: 400 }) }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 2000 }), fc.array(step, { maxLength: 60 }), (maxBytes, steps) => {
      const cache = lru(maxBytes);
      let model: [string, string][] = []; // hottest last
      for (const step of steps) {
        if ("set" in step) {
          model = model.filter(([k]) => k !== step.set);
          if (entryBytes(step.text) <= maxBytes) model.push([step.set, step.text]);
          const held = () => model.reduce((sum, [, text]) => sum + entryBytes(text), 0);
          while (held() > maxBytes) model.shift();
          cache.set(step.set, step.text);
          expect(cache.stats().bytes).toBe(held());
        } else {
          const entry = model.find(([k]) => k === step.get);
          if (entry) model = [...model.filter((other) => other !== entry), entry];
          expect(cache.get(step.get)).toBe(entry?.[1]);
        }
        expect(cache.stats().bytes).toBeLessThanOrEqual(maxBytes);
      }
    }),
  );
});
