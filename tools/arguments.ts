import { parseArgs } from "node:util";

/**
 * The arguments of a script without options, `min` to `max` of them. Ends the process at --help, with `usage` and exit
 * status 0, and at anything else that does not fit, with one line on standard error and exit status 2.
 */
export function readPositionals(usage: string, min = 0, max = min): string[] {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: max > 0,
      options: { help: { type: "boolean", short: "h" } },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    if (positionals.length >= min && positionals.length <= max) return positionals;
    const wanted = min === max ? min : `${min} to ${max}`;
    throw new RangeError(`expected ${wanted} arguments, got ${positionals.length}; see --help`);
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}

/** The number that an option has. Throws RangeError that names the option and what was expected. */
export function numberOf(name: string, value: string, min: number, max: number): number {
  const parsed = Number(value);
  if (value.trim() !== "" && parsed >= min && parsed <= max) return parsed;
  throw new RangeError(`--${name}: expected a number from ${min} to ${max}, got "${value}"`);
}

/** The same for a whole number, in digits. */
export function wholeOf(name: string, value: string, min: number, max: number): number {
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
