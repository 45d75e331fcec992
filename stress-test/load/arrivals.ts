import type { Random } from "../data/payloads.ts";

/** The times in ms at which requests are due: `perSecond` in each second, evenly spaced from 0. */
export function* evenly(perSecond: number, seconds = Number.POSITIVE_INFINITY): Generator<number> {
  const total = Math.max(1, Math.round(perSecond * seconds));
  for (let nth = 0; nth < total; nth++) yield (nth * 1000) / perSecond;
}

/** The times in ms at which users arrive within `seconds`, in a Poisson process. */
export function poisson(random: Random, perSecond: number, seconds: number): number[] {
  const times: number[] = [];
  const steps = 2 ** 30;
  for (let at = 0; ; ) {
    at -= (Math.log(random.int(1, steps) / steps) / perSecond) * 1000;
    if (at >= seconds * 1000) return times;
    times.push(at);
  }
}

/** The times in ms at which users arrive within `seconds`. The rate grows evenly from `from` to `to` per second. */
function ramp(from: number, to: number, seconds: number): number[] {
  const growth = (to - from) / seconds;
  const total = Math.floor(((from + to) / 2) * seconds);
  // User n arrives at the t that solves from × t + growth × t² / 2 = n.
  return Array.from({ length: total }, (_, nth) => {
    const root = Math.sqrt(from * from + 2 * growth * nth);
    return (growth === 0 ? nth / from : (2 * nth) / (from + root)) * 1000;
  });
}

/** The contest's users in the order of their arrival. `scale` multiplies every duration. */
export function contestArrivals(scale: number) {
  const phases = (...all: [from: number, to: number, seconds: number][]) => {
    let startMs = 0;
    return all.flatMap(([from, to, seconds]) => {
      const at = startMs;
      startMs += seconds * scale * 1000;
      return ramp(from, to, seconds * scale).map((ms) => at + ms);
    });
  };
  const due = {
    create: phases([2, 2, 10], [5, 5, 15], [6, 600, 180]),
    search: phases([2, 2, 25], [6, 100, 180]),
    "search without t": phases([2, 2, 25], [6, 40, 180]),
  };
  const kinds = Object.keys(due) as (keyof typeof due)[];
  return kinds.flatMap((kind) => due[kind].map((ms) => ({ kind, ms }))).sort((a, b) => a.ms - b.ms);
}
