import { maxFound } from "./limits.ts";

type Counter<Key> = {
  /** Undefined for an unknown key. */
  get(key: Key): number | undefined;
  set(key: Key, count: number): void;
  add(key: Key): void;
  /** Whether 50 persons have the key. */
  isFull(key: Key): boolean;
};

/** Remembers `max` keys and evicts the oldest. Counting an evicted key anew only costs space. */
export function counter<Key>(max: number): Counter<Key> {
  const counts = new Map<Key, number>();
  function set(key: Key, count: number) {
    counts.set(key, count);
    if (counts.size > max) counts.delete(counts.keys().next().value as Key);
  }
  return {
    get: (key) => counts.get(key),
    set,
    add: (key) => set(key, (counts.get(key) ?? 0) + 1),
    isFull: (key) => (counts.get(key) ?? 0) >= maxFound,
  };
}
