import { maxFound } from "./limits.ts";

/** Remembers `max` keys and evicts the oldest. Counting an evicted key anew only costs space. */
export function counter<Key>(max: number) {
  const counts = new Map<Key, number>();
  function set(key: Key, count: number): void {
    counts.set(key, count);
    if (counts.size > max) counts.delete(counts.keys().next().value as Key);
  }
  return {
    /** Undefined for an unknown key. */
    get: (key: Key) => counts.get(key),
    set,
    add: (key: Key) => set(key, (counts.get(key) ?? 0) + 1),
    /** Whether 50 persons have the key. */
    isFull: (key: Key) => (counts.get(key) ?? 0) >= maxFound,
  };
}
