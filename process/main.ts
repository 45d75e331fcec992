import { existsSync, readFileSync } from "node:fs";
import { EmbeddedError } from "../database/embedded.ts";
import * as log from "./log.ts";
import { help, readSettings, type Settings } from "./settings.ts";
import type { Running } from "./start.ts";

// `bun run start` gets Ctrl-C, too, and passes it on to the server.
const passedOnMs = 500;

type Host = Pick<NodeJS.Process, "argv" | "env"> & {
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  on(event: "unhandledRejection" | "uncaughtException", listener: (thrown: unknown) => void): unknown;
  exit(code: number): void;
};

/**
 * Serves until a signal. The first stops gracefully, also during the start, with status 0; the second at once, with
 * status 1.
 */
export async function main(
  host: Host,
  start: (settings: Settings, options: { gaveUp: AbortSignal }) => Promise<Running>,
): Promise<void> {
  const [unknown] = host.argv.slice(2);
  if (unknown === "--help" || unknown === "-h") return console.log(help());
  const gaveUp = new AbortController();
  let running: Running | undefined;
  const logBug = (thrown: unknown) => log.error("a bug in the server", log.trace(thrown));
  let first: { signal: NodeJS.Signals; at: number } | undefined;
  async function stop(signal: NodeJS.Signals) {
    if (first) {
      const again = signal === first.signal && performance.now() - first.at < passedOnMs;
      if (again && host.env.npm_lifecycle_event !== undefined) return;
      log.info(`stopping at once: ${signal}, the second signal`);
      running?.kill();
      return host.exit(1);
    }
    first = { signal, at: performance.now() };
    log.info(`stopping: ${signal}`);
    gaveUp.abort(); // rejects a pending start
    if (!running) return;
    try {
      await running.stop();
    } catch (error) {
      logBug(error);
      return host.exit(1);
    }
    log.info("stopped");
    host.exit(0);
  }
  // On the next tick: `bun --watch` calls SIGTERM's listeners before a reload.
  for (const signal of endingSignals()) host.on(signal, () => setImmediate(stop, signal));
  // Bun would print these errors unescaped.
  host.on("unhandledRejection", logBug);
  host.on("uncaughtException", (thrown) => {
    logBug(thrown);
    host.exit(1);
  });
  try {
    if (unknown) throw new RangeError(`${unknown}: settings are environment variables; --help lists them`);
    running = await start(readSettings(host.env), { gaveUp: gaveUp.signal });
    log.info(`listening on ${running.url}`);
  } catch (error) {
    if (error === gaveUp.signal.reason) {
      log.info("stopped");
      return host.exit(0);
    }
    const isExplained =
      error instanceof RangeError || error instanceof EmbeddedError || "code" in (error as object);
    log.error((error as Error).message, isExplained ? {} : log.trace(error)); // no client's data yet
    host.exit(1);
  }
}

/** Not SIGHUP where it is ignored, as under nohup. */
function endingSignals(): NodeJS.Signals[] {
  const file = "/proc/self/status";
  const status = existsSync(file) ? readFileSync(file, "utf8") : "";
  const [, ignored = "0"] = /^SigIgn:\s+(\w+)$/m.exec(status) ?? [];
  const isIgnored = (BigInt(`0x${ignored}`) & 1n) === 1n; // SIGHUP is number 1
  return ["SIGTERM", "SIGINT", "SIGQUIT", ...(isIgnored ? [] : ["SIGHUP" as const])];
}
