import { constants } from "node:os";
import { basename } from "node:path";
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

const help = { help: { type: "boolean", short: "h", default: false } } as const;
type Config<T extends ParseArgsOptionsConfig> = { options: T; allowPositionals: true };
type Parsed<T extends ParseArgsOptionsConfig> = ReturnType<typeof parseArgs<Config<T>>>;

/**
 * Returns the result of `read` (default: the values). --help prints `usage` and exits with 0. An error, also of `read`,
 * prints one line on standard error and exits with 2.
 */
export function readArguments<T extends ParseArgsOptionsConfig, R = Parsed<T>["values"]>(
  usage: string,
  options: T,
  read: (values: Parsed<T>["values"], positionals: string[]) => R = (values) => values as R,
  max = 0,
): R {
  try {
    const given = parseArgs({ allowPositionals: max > 0, options: { ...options, ...help } });
    if ((given.values as { help: boolean }).help) {
      console.log(usage);
      process.exit(0);
    }
    const { values, positionals } = given as unknown as Parsed<T>;
    if (positionals.length > max)
      throw new RangeError(`expected at most ${max} arguments, got ${positionals.length}; see --help`);
    return read(values, positionals);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}

/** The `min` to `max` arguments of a script without options. Exits like `readArguments`. */
export function readPositionals(usage: string, min = 0, max = min): string[] {
  const read = (_: object, positionals: string[]) => {
    if (positionals.length >= min) return positionals;
    throw new RangeError(`expected ${min} to ${max} arguments, got ${positionals.length}; see --help`);
  };
  return readArguments(usage, {}, read, max);
}

/** All elements, or those with these names. Throws RangeError for an unknown name. */
export function namedOf<T extends { name: string }>(
  option: string,
  all: readonly T[],
  names: readonly string[] | undefined,
): T[] {
  const unknown = names?.find((name) => !all.some((each) => each.name === name));
  if (unknown === undefined) return all.filter(({ name }) => names?.includes(name) ?? true);
  throw new RangeError(`--${option}: there is none called "${unknown}"; see --help`);
}

/** Runs a script. An error prints one line on standard error and exits with 2. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  await main().catch((error: unknown) => {
    console.error(`${basename(Bun.main)}: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}

/** Ctrl-C and SIGTERM end this process after `clean`. */
export function onSignals(clean: () => Promise<unknown>): void {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => void clean().finally(() => process.exit(128 + constants.signals[signal])));
  }
}

/** Throws RangeError with the option's name and the range. */
export function numberOf(name: string, value: string, min: number, max: number): number {
  const parsed = Number(value);
  if (value.trim() !== "" && parsed >= min && parsed <= max) return parsed;
  throw new RangeError(`--${name}: expected a number from ${min} to ${max}, got "${value}"`);
}

/** The same for a whole number in digits. */
export function wholeOf(name: string, value: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const parsed = Number(value);
  if (/^\d+$/.test(value) && parsed >= min && parsed <= max) return parsed;
  throw new RangeError(`--${name}: expected a whole number from ${min} to ${max}, got "${value}"`);
}

/** The same for persons: "300k" is 300,000, "1m" a million. */
export function personsOf(name: string, value: string, min: number, max: number): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([km]?)$/i.exec(value) ?? [];
  const persons = Number(digits) * ({ k: 1e3, m: 1e6 }[unit.toLowerCase()] ?? 1);
  if (Number.isSafeInteger(persons) && persons >= min && persons <= max) return persons;
  throw new RangeError(
    `--${name}: expected a number of persons from ${min} to ${max}, such as 300k or 1m, got "${value}"`,
  );
}
