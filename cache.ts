/** A least-recently-used cache of texts by key, bounded by the memory it holds and not by their number. */
export type Cache = {
  get(key: string): string | undefined;
  /** The same, but it moves nothing and counts nothing. */
  peek(key: string): string | undefined;
  set(key: string, text: string): void;
  /** What it did since the start, and what it holds now. `bytes` includes the overhead of every entry. */
  stats(): { hits: number; misses: number; entries: number; bytes: number };
};

// Map entry, key and string headers: 173 bytes, as the heap grew with 100,000 entries of 36-character keys.
const overheadBytes = 176;
const twoByteCharacter = /[^\0-\xff]/;

/** The engine keeps a text in one byte per UTF-16 unit, or in two if any unit needs it. */
const sizeOf = (text: string) => overheadBytes + text.length * (twoByteCharacter.test(text) ? 2 : 1);

/**
 * Throws RangeError unless `maxBytes` is a positive integer.
 * A text that is larger than the whole cache is not kept, and evicts nothing but the text its key had.
 */
export function lru(maxBytes: number): Cache {
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
    get(key) {
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
    peek: (key) => entries.get(key),
    set(key, text) {
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
    stats: () => ({ hits, misses, entries: entries.size, bytes }),
  };
}
