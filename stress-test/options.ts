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
