// A thread that wakes the load generator after a given number of milliseconds, precise to the microsecond, for half the
// CPU time of polling. setTimeout counts whole milliseconds, so it would be late by half of one on average.
import { readPositionals } from "../../tools/arguments.ts";

declare const self: Worker;

if (Bun.isMainThread) {
  readPositionals("Usage: clock.ts   a thread that the load generator starts; does nothing by itself");
  process.exit(0);
}

const never = new Int32Array(new SharedArrayBuffer(4)); // never notified, so each wait lasts its whole time

self.onmessage = ({ data }: MessageEvent<number>) => {
  Atomics.wait(never, 0, 0, data);
  self.postMessage(undefined);
};
