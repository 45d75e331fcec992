import { within } from "./within.ts";

type ReplicaOptions = {
  /** The JSON texts of the persons among these ids, by id. */
  ask(ids: string[]): Promise<Map<string, string>>;
  /** Longest wait for the replica. Then the primary is asked. */
  timeoutMs: number;
  /** Answers in flight no longer matter. */
  abandon(): void;
  /** Called once when the replica is lost, with the reason, and once when it is back. */
  report(message: string): void;
};

const probeMs = 1000;
const nilId = "00000000-0000-0000-0000-000000000000";

/**
 * Reads from a replica. Persons never change, so its rows are right; it may lag, so a missing row says nothing. After
 * a read without an answer in time, reads skip the replica until a background probe gets one.
 */
export function replica({ ask, timeoutMs, abandon, report }: ReplicaOptions) {
  let up = true;
  let closed = false;
  let asked = 0;
  let found = 0;
  let probe: Timer | undefined;

  async function answered(ids: string[]): Promise<Map<string, string> | Error> {
    const asked = ask(ids).catch((error: Error) => error);
    const answer = (await within(timeoutMs, asked)) ?? new Error(`no answer within ${timeoutMs} ms`);
    if (answer instanceof Error) abandon();
    return answer;
  }

  function leaveOut({ message, cause }: Error) {
    const reason = cause instanceof Error ? cause.message : message;
    if (up && !closed) report(`the replica is left out: ${reason}`);
    up = false;
    if (!closed) probe ??= setTimeout(tryAgain, probeMs);
  }

  async function tryAgain() {
    const answer = await answered([nilId]);
    probe = undefined;
    if (answer instanceof Error) return leaveOut(answer);
    up = true;
    report("the replica answers again");
  }

  return {
    /** The texts by id. Never rejects. The primary may have the missing ones. */
    async find(ids: string[]): Promise<Map<string, string>> {
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
