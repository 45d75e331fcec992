import { once } from "node:events";
import { Unavailable } from "../database/batch.ts";
import { type Embedded, startEmbedded } from "../database/embedded.ts";
import { loggable } from "../database/session.ts";
import { within } from "../database/within.ts";
import { type Handlers, listen } from "./listen.ts";
import * as log from "./log.ts";
import { unpatched } from "./patched.ts";
import type { Settings } from "./settings.ts";

/** A service on a database. */
export type Service = Handlers & {
  /** Rejects with Unavailable while that is not possible yet. */
  migrate(): Promise<void>;
  close(): Promise<void>;
};

export type Running = {
  url: string;
  /** Answers the requests in flight, then closes the database. */
  stop(): Promise<void>;
  kill(): void;
};

export type StartOptions = {
  gaveUp?: AbortSignal | undefined;
  /** Longest wait for requests in flight; default 5000. */
  drainMs?: number | undefined;
};

// Longest wait for the database before listening. Then the server is alive, and ready later.
const databaseWaitMs = 2000;
const retryMs = 100;

/** Rejects with a message for people, or with the reason of `gaveUp`. A failed start leaves nothing behind. */
export async function start(
  settings: Settings,
  open: (databaseUrl: string) => Service,
  { gaveUp = new AbortController().signal, drainMs = 5000 }: StartOptions = {},
): Promise<Running> {
  log.setLevel(settings.LOG_LEVEL);
  for (const name of unpatched()) {
    log.warn(`${name} is not patched, and may end the server when a connection is lost: run "bun install"`);
  }
  await using opened = new AsyncDisposableStack();
  let embedded: Embedded | undefined;
  if (settings.DATABASE_URL === undefined) {
    embedded = await startEmbedded(settings.DATA_DIR, log.info, gaveUp);
    opened.defer(embedded.stop);
  }
  const service = open(settings.DATABASE_URL ?? (embedded as Embedded).url);
  const ending = new AbortController();
  const migrated = migrate(service, AbortSignal.any([gaveUp, ending.signal]));
  migrated.catch(() => {}); // after the race below
  opened.defer(async () => {
    ending.abort();
    await service.close();
    await within(settings.DB_TIMEOUT_MS, migrated).catch(() => {});
  });
  await within(databaseWaitMs, Promise.race([migrated, aborted(gaveUp)]));
  gaveUp.throwIfAborted();
  const listening = await listen(settings, service);
  opened.defer(() => within(drainMs, listening.kill()));
  gaveUp.throwIfAborted();
  const closing = opened.move();
  return {
    url: listening.url,
    async stop() {
      ending.abort();
      await listening.leave();
      // An unfinished request must not block the stop.
      await within(drainMs, listening.close());
      await closing.disposeAsync();
    },
    kill() {
      void listening.kill();
      embedded?.kill();
    },
  };
}

function aborted(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal, "abort");
}

/** Tries until the database is reachable. Rejects when it cannot be used at all, but only before the server listens. */
async function migrate(service: Service, gaveUp: AbortSignal): Promise<void> {
  const waitEnds = performance.now() + databaseWaitMs;
  for (let logged = ""; !gaveUp.aborted; await Bun.sleep(retryMs)) {
    try {
      return await service.migrate();
    } catch (error) {
      if (gaveUp.aborted) return;
      if (!(error instanceof Unavailable) && performance.now() < waitEnds) throw error;
      const { message, cause = error } = error as Error;
      const { code, reason } = loggable(cause);
      const why = `${message}${reason === undefined ? "" : ` (${reason})`}`;
      if (why !== logged) log.warn(`${why}: trying again`, { code });
      logged = why;
    }
  }
}
