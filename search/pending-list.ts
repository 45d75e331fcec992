/** Persons in the pending list at most, by the creates of one instance. A merge of more costs no less CPU for each. */
export const maxPending = 65_536;
/**
 * A search reads every pending person. When the searches since the last merge have read this many, they have cost as much CPU as
 * a merge, so a merge is due.
 */
export const maxRead = 250_000;
const idleMs = 5000;

/** When an instance merges the pending list of the GIN index. */
export type MergeSchedule = {
  /** This instance has stored so many more persons in the index. */
  stored(persons: number): void;
  /** A search has read the pending list. */
  searched(): void;
  stop(): void;
};

/** Calls `merge` when the list is long, when searches have read much of it, or when no person was stored for `afterMs`. */
export function mergeSchedule(merge: () => void, afterMs = idleMs): MergeSchedule {
  let pending = 0;
  let read = 0;
  let timer: Timer | undefined;

  function begin() {
    clearTimeout(timer);
    timer = undefined;
    pending = read = 0;
    merge();
  }

  return {
    stored(persons) {
      pending += persons;
      if (pending >= maxPending) begin();
      else if (timer) timer.refresh();
      else timer = setTimeout(begin, afterMs);
    },
    searched() {
      read += pending;
      if (read >= maxRead) begin();
    },
    stop: () => clearTimeout(timer),
  };
}
