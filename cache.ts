export type Cache = ReturnType<typeof lru>;

// Measured on the heap with 36-character keys: Map entry, key and string headers.
const overheadBytes = 176;
const twoByteCharacter = /[^\0-\xff]/;

/** JavaScriptCore stores one byte per UTF-16 unit, or two if any needs it. */
const sizeOf = (text: string) => overheadBytes + text.length * (twoByteCharacter.test(text) ? 2 : 1);

/**
 * A least-recently-used cache of texts, bounded in bytes. Throws RangeError unless `maxBytes` is a positive integer. A
 * text larger than the whole cache is not kept.
 */
export function lru(maxBytes: number) {
  if (!Number.isSafeInteger(maxBytes) || maxBytes < 1) {
    throw new RangeError(`maxBytes: expected a positive integer, got ${maxBytes}`);
  }
  const entries = new Map<string, string>(); // insertion order is recency: the first key is the coldest
  let bytes = 0;
  let hits = 0;
  let misses = 0;

  function remove(key: string, text: string) {
    entries.delete(key);
    bytes -= sizeOf(text);
  }

  return {
    get(key: string): string | undefined {
      const text = entries.get(key);
      if (text === undefined) {
        misses++;
        return undefined;
      }
      hits++;
      entries.delete(key);
      entries.set(key, text);
      return text;
    },
    /** `get` without an effect on recency and counts. */
    peek: (key: string) => entries.get(key),
    set(key: string, text: string): void {
      const old = entries.get(key);
      if (old !== undefined) remove(key, old);
      const size = sizeOf(text);
      if (size > maxBytes) return;
      entries.set(key, text);
      bytes += size;
      for (const [coldest, its] of entries) {
        if (bytes <= maxBytes) break;
        remove(coldest, its);
      }
    },
    /** `bytes` includes the overhead of each entry. */
    stats: () => ({ hits, misses, entries: entries.size, bytes }),
  };
}
