import { progressBar } from "./progress.ts";

/**
 * Runs `work` on all items, `width` at a time. After its first error no item starts, and the promise rejects with it.
 */
export async function inParallel<T>(
  width: number,
  label: string,
  items: readonly T[],
  work: (item: T, index: number) => Promise<void>,
): Promise<void> {
  const bar = progressBar(items.length, `${label} `);
  let [next, done] = [0, 0];
  const worker = async () => {
    for (let index = next++; index < items.length; index = next++) {
      await work(items[index] as T, index);
      bar.update(++done);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(width, items.length) }, worker));
  } finally {
    next = items.length;
    bar.stop();
  }
}
