// A thread that wakes load.ts after as many milliseconds as it is told. It sleeps to the microsecond, at half the CPU
// time of polling; setTimeout counts whole milliseconds and is late by half of one on average.
declare const self: Worker;

const never = new Int32Array(new SharedArrayBuffer(4)); // nobody notifies it

self.onmessage = ({ data }: MessageEvent<number>) => {
  Atomics.wait(never, 0, 0, data);
  self.postMessage(undefined);
};
