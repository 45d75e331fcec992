/**
 * After so many persons the index takes in those that wait in its pending list, where searches are many. Fewer at once cost
 * more CPU for each person, more make searches slower: by 0.8 ms for each 1,000 that wait.
 */
export const mergeEvery = 2048;
/** After so many where searches are few. */
export const mergeLittleSearched = 2 * mergeEvery;
/** After so many where nobody searches. */
export const mergeUnsearched = 32 * mergeEvery;
/** So many searches are many: what they would take longer pays for one more merge. */
export const manySearches = 150;
// Or when so long no more came.
const patienceMs = 5000;

/** When an instance begins the merges of the index's pending list. */
export type Merges = {
  /** So many persons more were stored in the index. */
  stored(persons: number): void;
  /** The index was searched. */
  searched(): void;
  stop(): void;
};

/** Calls `merge`, counting what this instance stores; others count what they do. */
export function merges(merge: () => void, waitMs = patienceMs): Merges {
  let searches = 1; // since the last merge; whether there were some before is not known
  let waiting = 0;
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    timer = undefined;
    searches = waiting = 0;
    merge();
  }

  function limit(): number {
    if (searches >= manySearches) return mergeEvery;
    return searches > 0 ? mergeLittleSearched : mergeUnsearched;
  }

  return {
    stored(persons) {
      waiting += persons;
      if (waiting >= limit()) return begin();
      if (timer) timer.refresh();
      else timer = setTimeout(begin, waitMs);
    },
    searched() {
      if (searches === 0 && waiting >= mergeLittleSearched) begin(); // the first one after many creates
      searches++;
    },
    stop: () => clearTimeout(timer),
  };
}
