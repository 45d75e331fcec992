import type { Random } from "../data/payloads.ts";

/** The milliseconds at which requests are due: `perSecond` in each second, evenly spaced from 0. */
export function* evenly(perSecond: number, seconds = Number.POSITIVE_INFINITY): Generator<number> {
  const total = Math.max(1, Math.round(perSecond * seconds));
  for (let nth = 0; nth < total; nth++) yield (nth * 1000) / perSecond;
}

/** The milliseconds at which users arrive within `seconds`, in a Poisson process. */
export function poisson(random: Random, perSecond: number, seconds: number): number[] {
  const times: number[] = [];
  const steps = 2 ** 30;
  for (let at = 0; ; ) {
    at -= (Math.log(random.int(1, steps) / steps) / perSecond) * 1000;
    if (at >= seconds * 1000) return times;
    times.push(at);
  }
}

/** The milliseconds at which users arrive within `seconds`. The rate grows evenly from `from` to `to` per second. */
export function ramp(from: number, to: number, seconds: number): number[] {
  const growth = (to - from) / seconds;
  const total = Math.floor(((from + to) / 2) * seconds);
  // User n arrives at the t that solves from × t + growth × t² / 2 = n.
  return Array.from({ length: total }, (_, nth) => {
    const root = Math.sqrt(from * from + 2 * growth * nth);
    return (growth === 0 ? nth / from : (2 * nth) / (from + root)) * 1000;
  });
}
