import postgres from "postgres";
import { addressOf } from "./address.ts";
import { Unavailable } from "./batch.ts";

// Dates and json stay texts: no Date object, no second parsing.
const asText = { serialize: (text: string) => text, parse: (text: string) => text };
const types = { date: { to: 1082, from: [1082], ...asText }, json: { to: 114, from: [114], ...asText } };

// Overrides what a role, a database or a host may have set. Poolers reject startup parameters.
const session = {
  DateStyle: "ISO",
  default_transaction_isolation: "read committed",
  default_transaction_read_only: "off",
  gin_fuzzy_search_limit: "0",
  idle_in_transaction_session_timeout: "0",
  idle_session_timeout: "0",
  lock_timeout: "0",
  standard_conforming_strings: "on",
  statement_timeout: "0",
};
// A 201 is flushed. All values but off flush; some also wait for replicas.
const flushing = "coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on')";

/**
 * Without `settings` no setup is sent, and connections last. An idle connection closes after `idleS` seconds; 0: never.
 */
export function connect(url: string, max: number, settings?: Record<string, string>, idleS = 0) {
  const { options, searchPath } = addressOf(url);
  const pairs = Object.entries({ ...session, ...(searchPath && { search_path: searchPath }), ...settings });
  const literal = (text: string) => `E'${text.replaceAll(/['\\]/g, "\\$&")}'`;
  const values = [...pairs.map(([name, value]) => [name, literal(value)]), ["synchronous_commit", flushing]];
  // First, because a role's own limit would hold for the rest.
  const setup = `set statement_timeout = 0; select pg_backend_pid() as pid, ${values.map(([name, value]) => `set_config('${name}', ${value}, false)`).join()}`;
  // Options that the driver else reads from PG* variables.
  const driver = { max_pipeline: 100, prepare: true, debug: false, publications: "alltables" };
  return postgres({
    ...driver,
    ...options,
    // Lists, which the driver's types lack.
    host: options.host as unknown as string,
    port: options.port as unknown as number,
    max,
    types,
    backoff: () => 0.1, // seconds; the default waits up to 20 s after an outage
    idle_timeout: idleS,
    max_lifetime: settings ? 60 * (30 + Math.random() * 30) : null,
    fetch_types: false,
    onnotice: () => {},
    ...(settings && { setup }),
  });
}

/**
 * A value that does not fit its column or an index, or that a constraint or trigger rejects. Not null (23502): a sign
 * of a changed schema.
 */
export function isRowError(error: unknown): boolean {
  const { cause } = error as Error;
  return cause instanceof postgres.PostgresError && /^(22|23(?!502)|44|54000|P0001)/.test(cause.code);
}

export function hasCode(error: unknown, code: string): boolean {
  const { cause } = error as Error;
  return cause instanceof postgres.PostgresError && cause.code === code;
}

const schemaChanged = "the database was changed since the start of this instance: restart it"; // to Citus, for instance
// Messages for unhelpful codes.
const messages: Record<string, string> = {
  "0A000": schemaChanged,
  "23502": schemaChanged,
  "25006": "the database is read-only",
  "53100": "the database's disk is full",
  "53300": "the database has no connection left",
  "55P03": "a transaction that is not decided yet holds this person",
  "57014": "the database did not answer in time",
};

/**
 * Statement errors are bugs or a changed schema, and thrown as they are. All others, such as restarts, deadlocks, a
 * full disk, missing rights or a pooler's, are temporary: Unavailable.
 */
export function rethrow(error: unknown): never {
  if (error instanceof Unavailable) throw error;
  if (!(error instanceof postgres.PostgresError) || /^57P/.test(error.code)) {
    throw new Unavailable("the database cannot be reached", { cause: error });
  }
  // `where`: in another program's function, such as a trigger.
  if (/^42(?!501|P01|P05)/.test(error.code) && error.where === undefined) throw error;
  throw new Unavailable(messages[error.code] ?? `the database reports an error (${error.code})`, {
    cause: error,
  });
}

// Classes whose messages quote no client's data, as 22 and 23 do. Nor do the driver's.
const quotesNothing = /^(0[8A]|2[568]|3[DF]|4[02]|5[34578]|XX)|^[A-Z]+_?[A-Z_]+$/;

/** For an Unavailable. */
export function loggable(cause: unknown): { code: string | undefined; reason: string | undefined } {
  if (!(cause instanceof Error)) return { code: undefined, reason: undefined };
  const { code, message, where } = cause as NodeJS.ErrnoException & { where?: string };
  const isOwn = where === undefined && code !== undefined && quotesNothing.test(code);
  return { code, reason: isOwn ? message : undefined };
}
