import { Presets, SingleBar } from "cli-progress";

/**
 * Runs `work` on all items, `width` at a time, with a progress bar on standard error where that is a terminal. Rejects
 * with the first error of `work`, and starts no other item after it.
 */
export async function inParallel<T>(
  width: number,
  label: string,
  items: readonly T[],
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const format = `${label} {bar} {value} of {total}, {eta_formatted} left`;
  const bar = new SingleBar(
    { format, stream: process.stderr, hideCursor: true, clearOnComplete: true },
    Presets.shades_classic,
  );
  bar.start(items.length, 0);
  let next = 0;
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) {
      await work(items[index] as T, index);
      bar.increment();
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  } finally {
    next = items.length;
    bar.stop();
  }
}
