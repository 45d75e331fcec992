/** The database is away or too slow, or this instance has enough to do: the same request may be sent again. */
export class Unavailable extends Error {
  override name = "Unavailable";
}

/** Factor by which an item's deadline grows while the server works on what is in flight. */
export const whileWorking = 2;

export type GroupOptions = {
  /** Statements in flight at once. */
  lanes: number;
  /** Items that one statement may take. */
  size: number;
  /** Items that may wait; one more is refused at once. */
  queueLimit: number;
  /**
   * Age at which an item is given up, whether it waits or is in flight. One that would wait for more than half of that, at
   * the present pace and behind many others, is refused at once.
   */
  timeoutMs: number;
  /**
   * Whether the server works on what is in flight; asked repeatedly once an item is nearly too old. True: the deadline grows
   * by `whileWorking`. False: the answer was lost, and the statement is abandoned. A rejection says nothing.
   */
  isWorking?: () => Promise<boolean>;
  /** So long an item waits for others, at most, while items come more often than every six times that; 0: never. */
  gatherMs?: number;
  /**
   * Called when a statement is abandoned, because its answer was lost or is later than the server's own timeout would allow.
   * Its lane is free again: the next statement has to go over a new connection.
   */
  onStuck(): void;
};

export type Group<I, O> = {
  /** Rejects with Unavailable when too many wait or the item gets too old, else with what `run` threw. */
  submit(item: I): Promise<O>;
  /** Whether one more would be refused at once. */
  full(): boolean;
  stats(): {
    waiting: number;
    inFlight: number;
    oldestMs: number;
    statements: number;
    items: number;
    /** Lanes, and how many of them have a statement in flight. */
    lanes: number;
    busy: number;
  };
};

type Entry<I, O> = {
  item: I;
  since: number;
  resolve: (value: O) => void;
  reject: (reason: unknown) => void;
};
type Flight<I, O> = { entries: Entry<I, O>[]; since: number; abandon: (reason: Unavailable) => void };

// The database cuts a statement by itself when its items are too old. No answer this much later: the connection is dead.
const graceMs = 500;
// From this share of timeoutMs on the server is asked whether it is working; an answer holds for a while.
const askShare = 3 / 4;
const workingShare = 1 / 4;
const mostWorkingMs = 400;
const mostAgainMs = 100;
const againShare = 1 / 8;
// The mean of the gaps between items: over so many of them, none counted as longer than idleGapMs.
const gapsInMean = 16;
const leastIdleGapMs = 100;
const leastTimerMs = 1; // what a timer can wait
const gatherGaps = 6; // with a mean gap of so many times gatherMs, every sixth that waits meets another one
// The mean time of statements: over so many of them, none counted as longer than this share of timeoutMs. One that takes
// long is a pause, several are the pace.
const flightsInMean = 64;
const longestShare = 1 / 4;
const mostWaitShare = 1 / 2; // of timeoutMs; the rest is for a pace that gets slower
const few = 128; // let them wait: refused at once they come back at once, and have to be read and checked again

/**
 * Group commit, and the same for reads: while `lanes` statements are in flight new items gather, and the next
 * statement takes up to `size` of them. An item that comes when a lane is free leaves at once, alone, unless items
 * come so often that others will join it within `gatherMs`: batches grow with the load.
 *
 * `run` answers its items in their order. When it rejects, all items of that batch do.
 */
export function group<I, O>(run: (items: I[]) => Promise<O[]>, options: GroupOptions): Group<I, O> {
  const { lanes, size, queueLimit, timeoutMs, isWorking, gatherMs = 0, onStuck } = options;
  const askMs = isWorking ? timeoutMs * askShare : timeoutMs;
  const workingMs = Math.min(timeoutMs * workingShare, mostWorkingMs);
  const againMs = Math.min(timeoutMs * againShare, mostAgainMs);
  const oftenMs = gatherMs * gatherGaps;
  const idleGapMs = Math.max(leastIdleGapMs, 2 * oftenMs);
  const queue: Entry<I, O>[] = [];
  const flights = new Set<Flight<I, O>>();
  let statements = 0;
  let items = 0;
  let watching = false;
  let workingAt = -timeoutMs;
  let gathering: Timer | undefined;
  let last = 0;
  let meanGapMs = idleGapMs;
  let meanFlightMs = 0;

  function submit(item: I): Promise<O> {
    if (full()) return Promise.reject(new Unavailable("too many requests are waiting"));
    const now = performance.now();
    meanGapMs += (Math.min(now - last, idleGapMs) - meanGapMs) / gapsInMean;
    last = now;
    return new Promise((resolve, reject) => {
      queue.push({ item, since: now, resolve, reject });
      if (!watching) watch(askMs);
      flush();
    });
  }

  function full(): boolean {
    return queue.length >= queueLimit || (queue.length >= few && expectedMs() > timeoutMs * mostWaitShare);
  }

  function flush() {
    while (flights.size < lanes && queue.length > 0) {
      const waitMs = queue.length < size ? gatheringMs() : 0;
      if (waitMs >= leastTimerMs) {
        if (gathering === undefined) gathering = setTimeout(gathered, waitMs);
        return;
      }
      void fly(queue.splice(0, size));
    }
  }

  /** How long those ahead of a new item will keep it waiting, at the present pace. */
  function expectedMs(): number {
    return (Math.floor(queue.length / size) * meanFlightMs) / lanes;
  }

  function gathered() {
    gathering = undefined;
    flush();
  }

  /** How much longer the oldest is to wait for others. */
  function gatheringMs(): number {
    if (meanGapMs >= oftenMs) return 0;
    return (queue[0]?.since ?? 0) + gatherMs - performance.now();
  }

  async function fly(entries: Entry<I, O>[]) {
    const { promise: abandoned, reject } = Promise.withResolvers<never>();
    const flight = { entries, since: performance.now(), abandon: reject };
    flights.add(flight);
    statements++;
    items += entries.length;
    try {
      // The driver's promise may never settle (porsager/postgres#1186).
      const answers = await Promise.race([run(entries.map((entry) => entry.item)), abandoned]);
      for (const [i, entry] of entries.entries()) entry.resolve(answers[i] as O);
    } catch (error) {
      for (const entry of entries) entry.reject(error);
    }
    flights.delete(flight);
    const tookMs = Math.min(performance.now() - flight.since, timeoutMs * longestShare);
    meanFlightMs += (tookMs - meanFlightMs) / flightsInMean;
    flush();
  }

  // One clock for all items instead of one timer each: it looks again when the oldest will be too old, and stops when
  // there is nothing to watch.
  function tick() {
    const now = performance.now();
    const patienceMs = now - workingAt < workingMs ? whileWorking * timeoutMs : timeoutMs;
    const expired = (entry: Entry<I, O>) => now - entry.since >= patienceMs;
    const firstYoung = queue.findIndex((entry) => !expired(entry)); // oldest first: all behind it are younger
    const late = queue.splice(0, firstYoung === -1 ? queue.length : firstYoung);
    for (const flight of flights) late.push(...flight.entries.filter(expired));
    for (const entry of late) entry.reject(new Unavailable("the database did not answer in time"));
    abandon((flight) => now - flight.since >= patienceMs + graceMs);
    const ageMs = now - oldest();
    if (ageMs >= askMs) ask(now);
    watching = false;
    if (ageMs >= 0) watch(Math.max(askMs - ageMs, againMs));
  }

  /** A statement that is younger than `askMs` now may not have reached the server yet. */
  function ask(now: number) {
    const old = new Set([...flights].filter((flight) => now - flight.since >= askMs));
    isWorking?.().then(
      (working) => {
        if (working) workingAt = performance.now();
        else abandon((flight) => old.has(flight));
      },
      () => {},
    );
  }

  /** Their items are rejected, and their lanes are free. */
  function abandon(isLost: (flight: Flight<I, O>) => boolean) {
    const lost = [...flights].filter(isLost);
    if (lost.length === 0) return;
    onStuck();
    for (const flight of lost) flight.abandon(new Unavailable("the database did not answer in time"));
  }

  function watch(ms: number) {
    watching = true;
    setTimeout(tick, ms).unref(); // who has nothing else to do need not wait for it
  }

  /** Since when the oldest item has been here; Infinity when there is none. */
  function oldest(): number {
    return Math.min(
      ...[queue, ...[...flights].map(({ entries }) => entries)].map(([first]) => first?.since ?? Infinity),
    );
  }

  return {
    submit,
    full,
    stats() {
      const since = oldest();
      return {
        waiting: queue.length,
        inFlight: [...flights].reduce((sum, { entries }) => sum + entries.length, 0),
        oldestMs: since === Infinity ? 0 : performance.now() - since,
        statements,
        items,
        lanes,
        busy: flights.size,
      };
    },
  };
}
