/**
 * After so many persons the later index takes in those that wait (schema.sql), where searches are many. Fewer at once cost
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
  let waiting = 0; // persons since the last merge; a gap between two numbers is persons of other instances
  let [inTurn, last] = [0, 0]; // the last number that followed another one, and the last number of all
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    searches = 0;
    waiting = 0;
    merge();
  }

  function every(): number {
    if (searches >= manySearches) return mergeEvery;
    return searches > 0 ? mergeLittleSearched : mergeUnsearched;
  }

  /** How many persons were stored up to `n` since the one before. Undefined for a number out of turn: a huge person's. */
  function stepTo(n: number): number | undefined {
    if (follows(n, inTurn)) return n - inTurn;
    return follows(n, last) ? n - last : undefined;
  }

  return {
    created(n) {
      const step = stepTo(n);
      waiting += step ?? 1;
      if (step !== undefined) inTurn = n;
      last = n;
      if (n % mergeEvery !== 0) return;
      if (step !== undefined && n % every() === 0) return begin();
      clearTimeout(timer);
      timer = setTimeout(begin, waitMs);
    },
    searched() {
      if (searches === 0 && waiting >= mergeLittleSearched) begin(); // the first one after many creates
      searches++;
    },
    stop: () => clearTimeout(timer),
  };
}

const follows = (n: number, before: number) => n > before && n - before <= mergeUnsearched;
