import type postgres from "postgres";
import { Unavailable } from "./batch.ts";
import { connect, rethrow } from "./session.ts";

/** Rejects with Unavailable when the database cannot do it now. */
export type Query = <T extends object>(text: string, parameters: (string | null)[]) => Promise<T[]>;

type PoolOptions = {
  /** As for psql (address.ts). */
  url: string;
  max: number;
  settings(): Record<string, string>;
  /** Seconds after which an idle connection closes; 0: never. */
  idleS?: number;
};

export type Pool = ReturnType<typeof openPool>;

export function openPool({ url, max, settings, idleS = 0 }: PoolOptions) {
  const open = () => connect(url, max, settings(), idleS);
  let latest: Sent | undefined;
  let closed = false;
  let sql = open();
  const note = (sent: Sent) => {
    latest = sent;
  };
  return {
    max,
    query: <T extends object>(text: string, parameters: (string | null)[]) =>
      queryOn(sql, note)<T>(text, parameters).catch(rethrow),
    async transaction<T>(run: (query: Query) => Promise<T>): Promise<T> {
      return (await sql.begin((own) => run(queryOn(own, note))).catch(rethrow)) as T;
    },
    /** The server process of the latest statement; undefined while it connects. */
    pid: () => latest?.state?.setup?.at(-1)?.[0]?.pid,
    /** Closes all connections at once and, unless closed, opens new ones. Promises of the old ones may stay pending. */
    reopen() {
      void sql.end({ timeout: 0 });
      latest = undefined;
      if (!closed) sql = open();
    },
    /** Waits for statements in flight, `timeoutMs` at most. */
    close(timeoutMs: number) {
      closed = true;
      return sql.end({ timeout: timeoutMs / 1000 });
    },
  };
}

/** The results of the session's setup, which the driver adds to a query on a connection. */
type Sent = { state?: { setup?: { pid?: number }[][] } };

/** Rejects with the driver's error. */
export const queryOn =
  (on: Pick<postgres.Sql, "unsafe">, note: (sent: Sent) => void = () => {}): Query =>
  async <T extends object>(text: string, parameters: (string | null)[]) => {
    const sent = on.unsafe<T[]>(text, parameters, { prepare: true });
    note(sent as unknown as Sent);
    return await sent;
  };

/**
 * Resolves with `work`, however long it takes, while the server works on it. Rejects with Unavailable when
 * `isWorking`, asked every `everyMs`, says no or fails twice in a row: the connection is lost.
 */
export async function watched<T>(
  work: Promise<T>,
  isWorking: () => Promise<boolean>,
  everyMs: number,
): Promise<T> {
  const { promise: lost, reject } = Promise.withResolvers<never>();
  let timer = setTimeout(look, everyMs);
  let failures = 0;
  let ended = false;
  async function look() {
    const working = await isWorking().catch(() => undefined);
    if (ended) return;
    failures = working === undefined ? failures + 1 : 0;
    if (working === false || failures > 1) reject(new Unavailable("the database did not answer in time"));
    else timer = setTimeout(look, everyMs);
  }
  try {
    return await Promise.race([work, lost]);
  } finally {
    ended = true;
    clearTimeout(timer);
  }
}
