import { basename } from "node:path";
import { type ParseArgsOptionsConfig, parseArgs } from "node:util";

/**
 * A script's options as `parseArgs` gives them, and its `min` to `max` positional arguments. Ends the process at --help,
 * with `usage` and exit status 0, and at an unknown option or a wrong number of arguments, with one line on standard
 * error and exit status 2.
 */
export function readArguments<const T extends ParseArgsOptionsConfig>(
  usage: string,
  options: T,
  min = 0,
  max = min,
) {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { ...options, help: { type: "boolean", short: "h" } },
    });
    if ("help" in values) {
      console.log(usage);
      process.exit(0);
    }
    if (positionals.length >= min && positionals.length <= max) return { values, positionals };
    const expected = min === max ? min : `${min} to ${max}`;
    throw new RangeError(`expected ${expected} arguments, got ${positionals.length}; see --help`);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}

/** The positional arguments of a script without options, with the same errors. */
export function readPositionals(usage: string, min = 0, max = min): string[] {
  return readArguments(usage, {}, min, max).positionals;
}

/** Runs a script. Where it throws: one line on standard error, after the script's name, and exit status 2. */
export async function runScript(main: () => Promise<void>): Promise<void> {
  await main().catch((error: unknown) => {
    console.error(`${basename(Bun.main)}: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  });
}

/** The number in an option's value. Throws a RangeError with the option's name and the range. */
export function numberOf(name: string, value: string, min: number, max: number): number {
  const parsed = Number(value);
  if (value.trim() !== "" && parsed >= min && parsed <= max) return parsed;
  throw new RangeError(`--${name}: expected a number from ${min} to ${max}, got "${value}"`);
}

/** The same for a whole number, in digits. */
export function wholeOf(name: string, value: string, min: number, max = Number.MAX_SAFE_INTEGER): number {
  const parsed = Number(value);
  if (/^\d+$/.test(value) && parsed >= min && parsed <= max) return parsed;
  throw new RangeError(`--${name}: expected a whole number from ${min} to ${max}, got "${value}"`);
}

/** The same for a number of persons: "300k" is 300,000, "1m" a million. */
export function personsOf(name: string, value: string, min: number, max: number): number {
  const [, digits, unit = ""] = /^(\d+(?:\.\d+)?)([km]?)$/i.exec(value) ?? [];
  const persons = Number(digits) * ({ k: 1e3, m: 1e6 }[unit.toLowerCase()] ?? 1);
  if (Number.isSafeInteger(persons) && persons >= min && persons <= max) return persons;
  throw new RangeError(
    `--${name}: expected a number of persons from ${min} to ${max}, such as 300k or 1m, got "${value}"`,
  );
}
