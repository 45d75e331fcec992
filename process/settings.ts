import { join } from "node:path";
import { z } from "zod";
import { addressOf, withEnvironment } from "../database/address.ts";
import { levels } from "./log.ts";

const whole = (min: number, max: number) => {
  const error = `expected a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d+$/, { error, abort: true })
    .transform(Number)
    .refine((n) => n >= min && n <= max, error);
};
const databaseUrl = (mustTakeWrites: boolean) =>
  z.string().superRefine((text, { addIssue }) => {
    try {
      const { options } = addressOf(text);
      if (mustTakeWrites && options.target_session_attrs === "standby") {
        throw new RangeError(
          "target_session_attrs: expected read-write, primary or any, because creates go there",
        );
      }
    } catch (error) {
      addIssue({ code: "custom", message: (error as Error).message });
    }
  });

/** All settings. A test compares them with docs/operations.md. */
const Each = z.object({
  HOST: z.string().default("127.0.0.1").describe("address to listen on; 0.0.0.0 for all"),
  PORT: whole(0, 65_535).default(9999).describe("port to listen on; 0 for any free one"),
  SOCKET: z
    .string()
    .refine((path) => Buffer.byteLength(path) <= 100, "expected a path of at most 100 bytes")
    .optional()
    .describe("listen on this Unix socket and on no port"),
  DATABASE_URL: databaseUrl(true)
    .optional()
    .describe("URL of your PostgreSQL, 15 to 18, as psql takes it. Without it an embedded one is started"),
  DATABASE_URL_READ: databaseUrl(false)
    .optional()
    .describe("URL of a streaming replica of it, for reads by id"),
  DATA_DIR: z
    .string()
    .default(join(import.meta.dir, "..", ".data"))
    .describe("where the embedded PostgreSQL keeps its data"),
  DB_TIMEOUT_MS: whole(50, 60_000)
    .default(1500)
    .describe(
      "deadline of a request, 50 to 60000. The deadline of a create doubles while the database still answers pings",
    ),
  BATCH_WINDOW_MS: whole(0, 100)
    .default(5)
    .describe(
      "longest wait to fill a batch of creates, 0 to 100. Used only while the mean gap between creates is below 6 times this",
    ),
  SEARCHES: whole(1, 16)
    .default(2)
    .describe("searches that the database runs at once, 1 to 16; each takes a connection"),
  CACHE_BYTES: whole(1024, 2 ** 34)
    .default(32 * 2 ** 20)
    .describe("memory for cached answers"),
  LOG_LEVEL: z
    .enum(levels, { error: `expected one of ${levels.join(", ")}` })
    .default("info")
    .describe("lowest level that is logged: debug (with every request), info, warn or error"),
});
const Settings = Each.refine((all) => all.DATABASE_URL_READ === undefined || all.DATABASE_URL !== undefined, {
  path: ["DATABASE_URL_READ"],
  error: "expected DATABASE_URL, too: the URL of its primary",
});
export type Settings = z.infer<typeof Settings>;

/** Throws RangeError, in one line, with all invalid settings. An empty value counts as unset. */
export function readSettings(env: Record<string, string | undefined>): Settings {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
  for (const name of ["DATABASE_URL", "DATABASE_URL_READ"]) {
    if (given[name] !== undefined) given[name] = withEnvironment(given[name], env);
  }
  const { data, error } = Settings.safeParse(given);
  if (data) return data;
  const wrong = error.issues.map(({ path: [name], message }) => {
    const shown = String(name).startsWith("DATABASE_URL") ? "" : `, got "${given[String(name)]}"`; // it may hold a password
    return `${String(name)}: ${message}${shown}`;
  });
  throw new RangeError(wrong.join("; "));
}

/** `fallback`: as in the environment. */
export function describeSettings(): { name: string; fallback: string | undefined; what: string }[] {
  const defaults = Settings.parse({});
  return Object.entries(Each.shape).map(([name, { description = "" }]) => {
    const fallback = defaults[name as keyof Settings];
    return { name, fallback: fallback === undefined ? undefined : String(fallback), what: description };
  });
}

export function help(): string {
  const settings = describeSettings();
  const width = Math.max(...settings.map(({ name }) => name.length)) + 2;
  const lines = settings.flatMap(({ name, fallback, what }) => {
    const [first, ...more] = what.split(/(?<=[.;]) /);
    const rest = fallback === undefined ? more : [...more, `default: ${fallback}`];
    return [`  ${name.padEnd(width)}${first}`, ...rest.map((line) => `  ${" ".repeat(width)}${line}`)];
  });
  return [
    "A people registry. Settings are environment variables, also from a file .env:",
    "",
    ...lines,
    "",
  ].join("\n");
}
