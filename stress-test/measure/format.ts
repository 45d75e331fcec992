/** With a comma every three digits. */
export function number(value: number): string {
  return value.toLocaleString("en-US");
}

/** MiB with one decimal. */
export function mebibytes(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1);
}

/** Milliseconds with three significant digits; a whole number has all of its digits. "–" for null. */
export function milliseconds(ms: number | null): string {
  if (ms === null) return "–";
  return Number.isInteger(ms) || ms >= 100 ? number(Math.round(ms)) : ms.toFixed(ms < 10 ? 2 : 1);
}

/** Three significant digits: 0.25, 30, 1,500. */
export function short(value: number): string {
  return number(Number(value.toPrecision(3)));
}

/** The lines of a table: the first column aligned left, the others right. */
export function table(rows: readonly string[][]): string[] {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0))) ?? [];
  return rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join("   "),
  );
}
