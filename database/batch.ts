/** The database is away or too slow, or a queue is full. The same request may be sent again. */
export class Unavailable extends Error {
  override name = "Unavailable";
}

/** Factor by which an item's deadline grows while the database works on its statement. */
export const workingFactor = 2;

export type BatchOptions = {
  connections: number;
  batchSize: number;
  queueLimit: number;
  /** Deadline of an item, queued or in flight. */
  timeoutMs: number;
  /**
   * An item is rejected at once if its expected wait exceeds this share of `timeoutMs`. The rest is a reserve, because
   * statements may become slower than they were. Default 1/2.
   */
  maxWaitShare?: number;
  /**
   * Whether the database works on the statement in flight; asked near an item's deadline. True extends the deadline by
   * `workingFactor`, false abandons the statement, a rejection changes nothing.
   */
  isWorking?: () => Promise<boolean>;
  /** Longest wait to fill a batch. Used only while the mean gap between items is below 6 × this. */
  windowMs?: number;
  /** The next statement has to use a new connection. */
  onAbandoned(): void;
};

export type BatchStats = ReturnType<ReturnType<typeof batches>["stats"]>;

type Entry<I, O> = {
  item: I;
  since: number;
  resolve: (value: O) => void;
  reject: (reason: unknown) => void;
};
type Flight<I, O> = { entries: Entry<I, O>[]; since: number; abandon: (reason: Unavailable) => void };

// Without an answer so long after the database's own deadline, the connection is dead.
const graceMs = 500;
// From this share of timeoutMs on `isWorking` is asked.
const askShare = 3 / 4;
const workingShare = 1 / 4;
const maxWorkingMs = 400;
const maxAskAgainMs = 100;
const askAgainShare = 1 / 8;
// The mean gap: number of items, and the bound of each gap.
const gapsInMean = 16;
const minIdleGapMs = 100;
const minTimerMs = 1; // a timer's resolution
const windowGaps = 6; // at a mean gap of 6 windows one item in six meets another
// The mean duration: number of statements, and the bound of each as a share of timeoutMs, because one slow statement is
// not low throughput.
const flightsInMean = 64;
const maxFlightShare = 1 / 4;

/**
 * Group commit, and the same for reads. While all `connections` have a statement in flight, items queue, and the next
 * statement takes up to `batchSize`. On a free connection an item is sent at once, unless others are likely to join it
 * within `windowMs`. `run` resolves with one answer per item, in order; its rejection rejects them all.
 */
export function batches<I, O>(run: (items: I[]) => Promise<O[]>, options: BatchOptions) {
  const { connections, batchSize, queueLimit, timeoutMs, isWorking, windowMs = 0, onAbandoned } = options;
  const { maxWaitShare = 1 / 2 } = options;
  const askMs = isWorking ? timeoutMs * askShare : timeoutMs;
  const workingMs = Math.min(timeoutMs * workingShare, maxWorkingMs);
  const askAgainMs = Math.min(timeoutMs * askAgainShare, maxAskAgainMs);
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

  /** Rejects with Unavailable when the queue is full or the deadline passes, else with the error of `run`. */
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
    return queue.length >= queueLimit || expectedMs() > timeoutMs * maxWaitShare;
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

  function expectedMs(): number {
    return (Math.floor(queue.length / batchSize) * meanFlightMs) / connections;
  }

  function windowEnded() {
    windowTimer = undefined;
    flush();
  }

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

  // One timer for all items, near the deadline of the oldest.
  function tick(dueAt: number) {
    const now = performance.now();
    // After a pause of this process an answer of `isWorking` may be unread.
    const isLate = isWorking !== undefined && now - dueAt > askAgainMs;
    const deadlineMs = isLate || now - workingAt < workingMs ? workingFactor * timeoutMs : timeoutMs;
    const isExpired = (entry: Entry<I, O>) => now - entry.since >= deadlineMs;
    const firstInTime = queue.findIndex((entry) => !isExpired(entry)); // the queue is ordered by age
    const expired = queue.splice(0, firstInTime === -1 ? queue.length : firstInTime);
    for (const flight of flights) expired.push(...flight.entries.filter(isExpired));
    for (const entry of expired) entry.reject(new Unavailable("the database did not answer in time"));
    abandon((flight) => now - flight.since >= deadlineMs + graceMs);
    const ageMs = now - oldest();
    if (ageMs >= askMs) ask(now);
    watching = false;
    if (ageMs >= 0) watch(Math.max(askMs - ageMs, askAgainMs));
  }

  /** A statement younger than `askMs` may not have arrived yet, so it is not judged. */
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

  function abandon(isLost: (flight: Flight<I, O>) => boolean) {
    const lost = [...flights].filter(isLost);
    if (lost.length === 0) return;
    onAbandoned();
    for (const flight of lost) flight.abandon(new Unavailable("the database did not answer in time"));
  }

  function watch(ms: number) {
    watching = true;
    setTimeout(tick, ms, performance.now() + ms).unref(); // does not keep the process alive
  }

  /** Infinity without items. */
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
