import { expect, test } from "bun:test";
import { randomFrom } from "../data/payloads.ts";
import { poisson } from "./arrivals.ts";

test("users arrive in order and in time, at the given rate, with exponentially distributed gaps", () => {
  const times = poisson(randomFrom(7), 500, 40);
  expect(times).toEqual(poisson(randomFrom(7), 500, 40));
  expect(times).not.toEqual(poisson(randomFrom(8), 500, 40));
  expect(times).toEqual(times.toSorted((a, b) => a - b));
  expect(times.at(-1)).toBeLessThan(40_000);
  expect(Math.abs(times.length - 20_000)).toBeLessThan(6 * Math.sqrt(20_000));
  const gaps = times.map((time, index) => time - (times[index - 1] ?? 0));
  const longer = gaps.filter((gap) => gap > 2).length / gaps.length; // than the mean: 1/e
  expect(longer).toBeCloseTo(Math.exp(-1), 1);
});
