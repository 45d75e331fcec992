import type { Random } from "../data/payloads.ts";

/** Milliseconds at which requests are due, evenly spaced from 0 on: `perSecond` of them within each of `seconds`. */
export function* evenly(perSecond: number, seconds = Number.POSITIVE_INFINITY): Generator<number> {
  const total = Math.max(1, Math.round(perSecond * seconds));
  for (let nth = 0; nth < total; nth++) yield (nth * 1000) / perSecond;
}

/** Milliseconds at which users arrive within `seconds`, as a Poisson process has them. */
export function poisson(random: Random, perSecond: number, seconds: number): number[] {
  const times: number[] = [];
  const steps = 2 ** 30;
  for (let at = 0; ; ) {
    at -= (Math.log(random.int(1, steps) / steps) / perSecond) * 1000;
    if (at >= seconds * 1000) return times;
    times.push(at);
  }
}

/** Milliseconds at which users arrive within `seconds`, evenly, at a rate that grows from `from` to `to` per second. */
export function ramp(from: number, to: number, seconds: number): number[] {
  const growth = (to - from) / seconds;
  const total = Math.floor(((from + to) / 2) * seconds);
  // The nth is due where from × t + growth × t² / 2 = n.
  return Array.from({ length: total }, (_, nth) => {
    const root = Math.sqrt(from * from + 2 * growth * nth);
    return (growth === 0 ? nth / from : (2 * nth) / (from + root)) * 1000;
  });
}
