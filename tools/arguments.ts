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
