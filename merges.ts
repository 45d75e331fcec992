/**
 * After so many persons the later index takes in those that wait (schema.sql). Fewer at once cost more CPU for each, more
 * make searches slower: by 0.8 ms for each 1,000 that wait.
 */
export const mergeEvery = 4096;
/** After so many where nobody searches. */
export const mergeUnsearched = 4 * mergeEvery;
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
  let searched = true; // since the last merge; who did before is not known
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    searched = false;
    merge();
  }

  return {
    created(n) {
      if (n % mergeEvery !== 0) return;
      if (searched || n % mergeUnsearched === 0) return begin();
      clearTimeout(timer);
      timer = setTimeout(begin, waitMs);
    },
    searched() {
      searched = true;
    },
    stop: () => clearTimeout(timer),
  };
}
