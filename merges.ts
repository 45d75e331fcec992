/**
 * After so many persons the later index takes in those that wait (schema.sql), where searches are many. Fewer at once cost
 * more CPU for each person, more make searches slower: by 0.8 ms for each 1,000 that wait.
 */
export const mergeEvery = 1024;
/** After so many where searches are few. */
export const mergeLittleSearched = 4 * mergeEvery;
/** After so many where nobody searches. */
export const mergeUnsearched = 16 * mergeEvery;
/** So many searches are many: what they would take longer pays for three more merges. */
export const manySearches = 100;
// Or when so long no more came.
const patienceMs = 5000;

/** When an instance begins the merges of the later index. */
export type Merges = {
  /** The `n`th person was stored. */
  created(n: number): void;
  /** Somebody searches that index. */
  searched(): void;
  stop(): void;
};

/** Calls `merge` for the persons whose numbers it is told; other instances do so for the others. */
export function merges(merge: () => void, waitMs = patienceMs): Merges {
  let searches = 1; // since the last merge; who did before is not known
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    searches = 0;
    merge();
  }

  function every(): number {
    if (searches >= manySearches) return mergeEvery;
    return searches > 0 ? mergeLittleSearched : mergeUnsearched;
  }

  return {
    created(n) {
      if (n % mergeEvery !== 0) return;
      if (n % every() === 0) return begin();
      clearTimeout(timer);
      timer = setTimeout(begin, waitMs);
    },
    searched() {
      searches++;
    },
    stop: () => clearTimeout(timer),
  };
}
