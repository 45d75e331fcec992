/** The pending list's bound, in persons stored by one instance. Larger merges cost no less CPU per person. */
export const maxPending = 65_536;
/** A search reads every pending person. After so many reads the list has cost as much CPU as its merge. */
export const maxRead = 250_000;
const idleMs = 5000;

/**
 * Merges the GIN pending list: calls `merge` for a long list, for one that searches have read much, and `afterMs` after
 * the last create.
 */
export function mergeSchedule(merge: () => void, afterMs = idleMs) {
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
    /** This instance stored `persons` more in the index. */
    stored(persons: number) {
      pending += persons;
      if (pending >= maxPending) begin();
      else if (timer) timer.refresh();
      else timer = setTimeout(begin, afterMs);
    },
    /** A search has read the pending list. */
    searched() {
      read += pending;
      if (read >= maxRead) begin();
    },
    stop: () => clearTimeout(timer),
  };
}
