/**
 * Persons between two merges. A merge of more persons costs less CPU for each; a search takes 0.8 ms longer for each 1,000
 * persons that are pending.
 */
export const mergeEvery = 8192;
const idleMs = 5000;

/** When an instance merges the pending list of the GIN index. */
export type MergeSchedule = {
  /** This instance has stored so many more persons in the index. */
  stored(persons: number): void;
  stop(): void;
};

/** Calls `merge` after each `mergeEvery` persons, and when none was stored for `afterMs`. */
export function mergeSchedule(merge: () => void, afterMs = idleMs): MergeSchedule {
  let pending = 0;
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    timer = undefined;
    pending = 0;
    merge();
  }

  return {
    stored(persons) {
      pending += persons;
      if (pending >= mergeEvery) begin();
      else if (timer) timer.refresh();
      else timer = setTimeout(begin, afterMs);
    },
    stop: () => clearTimeout(timer),
  };
}
