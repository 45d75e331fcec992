import { join } from "node:path";
import { z } from "zod";

const whole = (min: number, max: number) => {
  const error = `expected a whole number from ${min} to ${max}`;
  return z
    .string()
    .regex(/^\d+$/, { error, abort: true })
    .transform(Number)
    .refine((n) => n >= min && n <= max, error);
};
const databaseUrl = z.url({
  protocol: /^postgres(ql)?$/,
  error: "expected a URL such as postgres://user:password@host:5432/database",
});

/** Every setting, from the environment. The README's table says what each is for. */
const Settings = z.object({
  HOST: z.string().default("127.0.0.1"),
  PORT: whole(0, 65_535).default(9999),
  SOCKET: z
    .string()
    .refine((path) => Buffer.byteLength(path) <= 100, "expected a path of at most 100 bytes")
    .optional(),
  DATABASE_URL: databaseUrl.optional(),
  DATA_DIR: z.string().default(join(import.meta.dir, ".data")),
  DB_TIMEOUT_MS: whole(50, 60_000).default(1500),
  DRAIN_MS: whole(0, 3_600_000).default(5000), // containers are killed after 10 s
  BATCH_SIZE: whole(1, 1000).default(128),
  QUEUE_LIMIT: whole(1, 1_000_000).default(4096),
  CACHE_BYTES: whole(1024, 2 ** 34).default(32 * 2 ** 20),
});
export type Settings = z.infer<typeof Settings>;

/** Throws RangeError that names every wrong setting in one line. An empty value counts as not set. */
export function readSettings(env: Record<string, string | undefined>): Settings {
  const given = Object.fromEntries(Object.entries(env).filter(([, value]) => value !== ""));
  const { data, error } = Settings.safeParse(given);
  if (data) return data;
  const wrong = error.issues.map(({ path: [name], message }) => {
    const shown = name === "DATABASE_URL" ? "" : `, got "${given[String(name)]}"`; // it may hold a password
    return `${String(name)}: ${message}${shown}`;
  });
  throw new RangeError(wrong.join("; "));
}
