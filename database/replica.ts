/** What it has done since the start, and whether it is asked at present. */
export type ReplicaStats = { asked: number; found: number; up: boolean };

export type ReplicaOptions = {
  /** The persons among these ids, by id: JSON texts. */
  ask(ids: string[]): Promise<Map<string, string>>;
  /** A read waits this long for the replica, and then asks the primary. */
  timeoutMs: number;
  /** Called when it did not answer in time: what is in flight will not be waited for any more. */
  abandon(): void;
  /** Called once when the replica is lost, with the reason, and once when it is back. */
  report(message: string): void;
};

export type Replica = {
  /** Those whom the replica has. Never rejects: who is missing may be missing there alone. */
  find(ids: string[]): Promise<Map<string, string>>;
  stats(): ReplicaStats;
  close(): void;
};

const probeMs = 1000;
const nobody = "00000000-0000-0000-0000-000000000000";

/**
 * Reads that a replica answers as long as it can. Persons never change, so whatever it has is right; it may lag behind,
 * so whatever it has not says nothing. The first read that it does not answer in time is the last one to wait for
 * it: from then on it is left out, and probed in the background until it answers again.
 */
export function replica({ ask, timeoutMs, abandon, report }: ReplicaOptions): Replica {
  let up = true;
  let closed = false;
  let asked = 0;
  let found = 0;
  let probe: Timer | undefined;

  async function answered(ids: string[]): Promise<Map<string, string> | Error> {
    const { promise: late, resolve } = Promise.withResolvers<Error>();
    const timer = setTimeout(() => resolve(new Error(`no answer within ${timeoutMs} ms`)), timeoutMs);
    const answer = await Promise.race([ask(ids).catch((error: Error) => error), late]);
    clearTimeout(timer);
    if (answer instanceof Error) abandon();
    return answer;
  }

  function leaveOut(why: Error) {
    if (up && !closed) report(`the replica is left out: ${reason(why)}`);
    up = false;
    if (!closed) probe ??= setTimeout(tryAgain, probeMs);
  }

  async function tryAgain() {
    const answer = await answered([nobody]);
    probe = undefined;
    if (answer instanceof Error) return leaveOut(answer);
    up = true;
    report("the replica answers again");
  }

  return {
    async find(ids) {
      if (!up) return new Map();
      asked += ids.length;
      const answer = await answered(ids);
      if (answer instanceof Error) {
        leaveOut(answer);
        return new Map();
      }
      found += answer.size;
      return answer;
    },
    stats: () => ({ asked, found, up }),
    close() {
      closed = true;
      clearTimeout(probe);
    },
  };
}

function reason({ message, cause }: Error): string {
  return cause instanceof Error ? cause.message : message;
}
