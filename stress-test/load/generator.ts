/**
 * The load generator. In a closed loop a request follows an answer. In an open loop a request is sent when it is due,
 * without waiting for earlier answers. Latency counts from the due time, so it includes the wait for a connection and a
 * late start (no coordinated omission).
 */
import { type ConnectionOptions, connect } from "./connections.ts";
import type { Answer, Request } from "./http.ts";
import type { Result } from "./results.ts";

/** One loop. */
export type Run = {
  /** Requests so far, without those of `follow`. */
  readonly started: number;
  readonly stopped: boolean;
  /** In the order of the answers. Grows until the run has ended. */
  readonly results: Result[];
  /** Milliseconds by which an open loop sent each request later than due. */
  readonly lateMs: number[];
  /** Resolves after the last request was sent. */
  readonly sent: Promise<void>;
  /** Resolves when each request also has its answer or was given up. */
  readonly answered: Promise<void>;
  /** No request is sent after it. */
  stop(): void;
};

export type GeneratorOptions = ConnectionOptions & {
  /** Number of requests without an answer after which a loop stops. */
  giveUpAfter?: number;
};
export type ClosedOptions = {
  users: number;
  /** Default: without end. */
  seconds?: number;
  /** The next request; undefined ends the loop. */
  next(): Request | undefined;
};
export type OpenOptions = {
  /** In ms from the start, ascending. */
  arrivals: Iterable<number>;
  /** Requests that are due within this time are sent together, which takes less CPU. */
  tickMs?: number;
  next(): Request;
};

export type Generator = ReturnType<typeof generator>;

/** It keeps the process alive until `close`. */
export function generator({ giveUpAfter = Number.POSITIVE_INFINITY, ...options }: GeneratorOptions) {
  const { dispatch, open, close } = connect(options);
  const runs = new Set<Run>();
  let clock: Worker | undefined;

  /** Resolves when the thread has answered its first message. */
  async function startClock(): Promise<Worker> {
    clock ??= new Worker(new URL("clock.ts", import.meta.url));
    const worker = clock;
    await new Promise<void>((resolve) => {
      worker.onmessage = () => resolve();
      worker.postMessage(0);
    });
    return worker;
  }

  /** A run, and a function that sends a user's first request. */
  function begin() {
    const [sent, answered] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let [pending, unanswered] = [0, 0];
    const run = {
      started: 0,
      stopped: false,
      results: [] as Result[],
      lateMs: [] as number[],
      sent: sent.promise,
      answered: answered.promise,
      stop,
    };
    runs.add(run);
    function stop() {
      run.stopped = true;
      sent.resolve();
      if (pending === 0) answered.resolve();
    }
    const record = (result: Result) => {
      run.results.push(result);
      if (result.status === 0 && ++unanswered >= giveUpAfter) stop();
    };
    const user = (request: Request, dueMs: number, next = () => {}) => {
      run.started++;
      pending++;
      const done = () => {
        pending--;
        next();
        if (run.stopped) stop();
      };
      dispatch({ request, dueMs, record, done });
    };
    return { run, user };
  }

  return {
    /** Starts the clock of open loops, and opens connections in advance. Rejects if nothing listens. */
    async warm(connections = 0): Promise<void> {
      await Promise.all([startClock(), open(connections)]);
    },
    /** Each of `users` sends its next request after the answer to the one before. */
    closed({ users, seconds = Number.POSITIVE_INFINITY, next }: ClosedOptions): Run {
      const { run, user } = begin();
      const endMs = performance.now() + seconds * 1000;
      let active = users;
      const step = () => {
        const nowMs = performance.now();
        const request = run.stopped || nowMs >= endMs ? undefined : next();
        if (request) user(request, nowMs, () => queueMicrotask(step));
        else if (--active === 0) run.stop();
      };
      for (let nth = 0; nth < users; nth++) step();
      return run;
    },
    /** Sends one request at each of `arrivals`. Only one such loop may run. */
    open({ arrivals, tickMs = 0, next }: OpenOptions): Run {
      const { run, user } = begin();
      const times = arrivals[Symbol.iterator]();
      let time = times.next();
      void startClock().then((clock) => {
        const startMs = performance.now();
        const tick = () => {
          const nowMs = performance.now() - startMs;
          for (; !run.stopped && !time.done && time.value <= nowMs; time = times.next()) {
            run.lateMs.push(nowMs - time.value);
            user(next(), startMs + time.value);
          }
          if (time.done) run.stop();
          else if (!run.stopped) clock.postMessage(Math.max(tickMs, time.value - nowMs));
        };
        clock.onmessage = tick;
        tick();
      });
      return run;
    },
    /** Sends one request at once. Resolves with its result and answer. */
    ask(request: Request): Promise<Result & { answer: Answer | undefined }> {
      const { promise, resolve } = Promise.withResolvers<Result & { answer: Answer | undefined }>();
      const record = (result: Result, answer?: Answer) => resolve({ ...result, answer });
      dispatch({ request, dueMs: performance.now(), record, done() {} });
      return promise;
    },
    /** Stops all loops, and fails requests without an answer. */
    close() {
      for (const run of runs) run.stop();
      clock?.terminate();
      close();
    },
  };
}
