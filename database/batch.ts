/** The database is away or too slow, or too many requests are waiting: the same request may be sent again. */
export class Unavailable extends Error {
  override name = "Unavailable";
}

/** Factor by which an item's deadline grows while the database works on its statement. */
export const workingFactor = 2;

export type BatchOptions = {
  /** Statements in flight at once, each on a connection of its own. */
  connections: number;
  /** Items that one statement takes at most. */
  batchSize: number;
  /** Items that may wait. One more is rejected at once. */
  queueLimit: number;
  /**
   * Deadline of an item, whether it waits or is in flight. An item that would wait for more than half of it, at the present
   * throughput and behind many others, is rejected at once.
   */
  timeoutMs: number;
  /**
   * Whether the database works on the statement in flight. Called repeatedly when an item is near its deadline. True extends
   * the deadline by `workingFactor`. False abandons the statement: its answer was lost. A rejection changes nothing.
   */
  isWorking?: () => Promise<boolean>;
  /** Longest wait to fill a batch. Used only while the mean gap between items is below 6 × this; 0: never. */
  windowMs?: number;
  /**
   * Called when a statement is abandoned, because its answer was lost or is later than the database's own timeout allows. The
   * next statement has to use a new connection.
   */
  onAbandoned(): void;
};

export type Batches<I, O> = {
  /** Rejects with Unavailable when too many items wait or the deadline passes, else with what `run` threw. */
  submit(item: I): Promise<O>;
  /** Whether one more item would be rejected at once. */
  isFull(): boolean;
  stats(): {
    waiting: number;
    inFlight: number;
    oldestMs: number;
    statements: number;
    items: number;
    /** Connections, and how many of them have a statement in flight. */
    connections: number;
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

// The database cancels a statement at its deadline. Without an answer this much later the connection is dead.
const graceMs = 500;
// From this share of timeoutMs on the database is asked whether it works; an answer is valid for a while.
const askShare = 3 / 4;
const workingShare = 1 / 4;
const maxWorkingMs = 400;
const maxAgainMs = 100;
const againShare = 1 / 8;
// The mean gap between items: over this many, each counted as idleGapMs at most.
const gapsInMean = 16;
const minIdleGapMs = 100;
const minTimerMs = 1; // the resolution of a timer
const windowGaps = 6; // at a mean gap of 6 windows one item in six meets another in its window
// The mean time of statements: over this many, each counted as this share of timeoutMs at most, so one slow statement is not
// taken for the throughput.
const flightsInMean = 64;
const maxFlightShare = 1 / 4;
const maxWaitShare = 1 / 2; // of timeoutMs; the rest is a reserve for a lower throughput
const neverShed = 128; // items: a rejected one comes back at once and has to be validated again

/**
 * Group commit, and the same for reads. While all `connections` have a statement in flight, items queue, and the next statement
 * takes up to `batchSize` of them. An item that finds a free connection is sent at once, unless items come so often that
 * others will join it within `windowMs`. So batches grow with the load.
 *
 * `run` resolves with one answer for each item, in their order. When it rejects, so do all items of the batch.
 */
export function batches<I, O>(run: (items: I[]) => Promise<O[]>, options: BatchOptions): Batches<I, O> {
  const { connections, batchSize, queueLimit, timeoutMs, isWorking, windowMs = 0, onAbandoned } = options;
  const askMs = isWorking ? timeoutMs * askShare : timeoutMs;
  const workingMs = Math.min(timeoutMs * workingShare, maxWorkingMs);
  const againMs = Math.min(timeoutMs * againShare, maxAgainMs);
  const maxGapMs = windowMs * windowGaps;
  const idleGapMs = Math.max(minIdleGapMs, 2 * maxGapMs);
  const queue: Entry<I, O>[] = [];
  const flights = new Set<Flight<I, O>>();
  let statements = 0;
  let items = 0;
  let watching = false;
  let workingAt = -timeoutMs;
  let windowTimer: Timer | undefined;
  let last = 0;
  let meanGapMs = idleGapMs;
  let meanFlightMs = 0;

  function submit(item: I): Promise<O> {
    if (isFull()) return Promise.reject(new Unavailable("too many requests are waiting"));
    const now = performance.now();
    meanGapMs += (Math.min(now - last, idleGapMs) - meanGapMs) / gapsInMean;
    last = now;
    return new Promise((resolve, reject) => {
      queue.push({ item, since: now, resolve, reject });
      if (!watching) watch(askMs);
      flush();
    });
  }

  function isFull(): boolean {
    return (
      queue.length >= queueLimit || (queue.length >= neverShed && expectedMs() > timeoutMs * maxWaitShare)
    );
  }

  function flush() {
    while (flights.size < connections && queue.length > 0) {
      const waitMs = queue.length < batchSize ? windowLeftMs() : 0;
      if (waitMs >= minTimerMs) {
        if (windowTimer === undefined) windowTimer = setTimeout(windowEnded, waitMs);
        return;
      }
      void fly(queue.splice(0, batchSize));
    }
  }

  /** How long a new item would wait for those ahead of it, at the present throughput. */
  function expectedMs(): number {
    return (Math.floor(queue.length / batchSize) * meanFlightMs) / connections;
  }

  function windowEnded() {
    windowTimer = undefined;
    flush();
  }

  /** What is left of the oldest item's window. */
  function windowLeftMs(): number {
    if (meanGapMs >= maxGapMs) return 0;
    return (queue[0]?.since ?? 0) + windowMs - performance.now();
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
    const tookMs = Math.min(performance.now() - flight.since, timeoutMs * maxFlightShare);
    meanFlightMs += (tookMs - meanFlightMs) / flightsInMean;
    flush();
  }

  // One timer for all items: it fires when the oldest item is near its deadline, and stops when no item is left.
  function tick() {
    const now = performance.now();
    const patienceMs = now - workingAt < workingMs ? workingFactor * timeoutMs : timeoutMs;
    const expired = (entry: Entry<I, O>) => now - entry.since >= patienceMs;
    const firstYoung = queue.findIndex((entry) => !expired(entry)); // the queue is ordered by age
    const late = queue.splice(0, firstYoung === -1 ? queue.length : firstYoung);
    for (const flight of flights) late.push(...flight.entries.filter(expired));
    for (const entry of late) entry.reject(new Unavailable("the database did not answer in time"));
    abandon((flight) => now - flight.since >= patienceMs + graceMs);
    const ageMs = now - oldest();
    if (ageMs >= askMs) ask(now);
    watching = false;
    if (ageMs >= 0) watch(Math.max(askMs - ageMs, againMs));
  }

  /** A statement that is younger than `askMs` may not have reached the database yet, so it is not judged. */
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

  /** Rejects their items and frees their connections. */
  function abandon(isLost: (flight: Flight<I, O>) => boolean) {
    const lost = [...flights].filter(isLost);
    if (lost.length === 0) return;
    onAbandoned();
    for (const flight of lost) flight.abandon(new Unavailable("the database did not answer in time"));
  }

  function watch(ms: number) {
    watching = true;
    setTimeout(tick, ms).unref(); // the process may end before it fires
  }

  /** When the oldest item came; Infinity without items. */
  function oldest(): number {
    return Math.min(
      ...[queue, ...[...flights].map(({ entries }) => entries)].map(([first]) => first?.since ?? Infinity),
    );
  }

  return {
    submit,
    isFull,
    stats() {
      const since = oldest();
      return {
        waiting: queue.length,
        inFlight: [...flights].reduce((sum, { entries }) => sum + entries.length, 0),
        oldestMs: since === Infinity ? 0 : performance.now() - since,
        statements,
        items,
        connections,
        busy: flights.size,
      };
    },
  };
}
