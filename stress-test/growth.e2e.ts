import { afterAll, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { newDatabase, query, runScript, temporaryFolder } from "../tests/helpers/support.ts";

const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());

/** `out`: a folder that does not exist yet. */
async function growth(args: string[], env?: Record<string, string>) {
  const out = join(folder.path, crypto.randomUUID());
  return { out, ...(await runScript("stress-test/growth.ts", ["--json", "--out", out, ...args], env)) };
}

const brief = ["--samples", "5", "--seconds", "1"];

test("a new embedded database grows and is measured; a second run continues it", async () => {
  const data = join(folder.path, "data");
  const own = { DATABASE_URL: "" };
  const first = await growth([...brief, "--to", "10k", "--data", data], own);
  expect([first.code, first.json?.problems]).toEqual([0, []]);
  const [size] = first.json.sizes;
  expect(size).toMatchObject({ persons: 10_000, tableBytes: expect.any(Number) });
  expect(Object.keys(size.indexBytes)).toContain("pessoas_pkey");
  for (const cost of Object.values<Record<string, number>>(size.operations)) {
    expect(cost.p50).toBeGreaterThan(0);
    expect(cost.p99).toBeGreaterThanOrEqual(cost.p50 as number);
    if (process.platform === "linux") expect(cost.cpuMs).toBeGreaterThanOrEqual(0);
  }
  expect(size.operations["no hit"].hits).toBe(0);
  expect(size.operations["one common letter"].hits).toBe(50);
  expect(size.operations["two rare letters"].hits).toBeGreaterThan(0);
  expect(await Bun.file(join(first.out, "growth.json")).json()).toEqual(first.json);
  expect(await Bun.file(join(first.out, "growth.svg")).text()).toContain("two rare letters");

  const on = await growth([...brief, "--to", "12k", "--data", data], own);
  expect([on.code, on.json?.problems]).toEqual([0, []]);
  expect(on.json.sizes.map(({ persons }: { persons: number }) => persons)).toEqual([
    expect.any(Number),
    12_000,
  ]);
  expect(on.json.sizes[0].persons).toBeGreaterThan(10_000); // with the persons of the measured creates
}, 120_000);

test("wrong answers fail the run, and a database with other persons is not changed", async () => {
  const DATABASE_URL = await newDatabase();
  expect((await growth([...brief, "--to", "10k"], { DATABASE_URL })).code).toBe(0);
  await query(DATABASE_URL, "update pessoas set busca = 'x'");
  const wrong = await growth([...brief, "--to", "10k"], { DATABASE_URL });
  expect([wrong.code, wrong.json.problems.length > 0]).toEqual([1, true]);
  const others = await growth([...brief, "--to", "10k", "--seed", "2"], { DATABASE_URL });
  expect([others.code, others.stderr]).toEqual([2, expect.stringContaining("holds persons already")]);
}, 120_000);

test.each([
  [["--to", "many"], "--to: expected a number of persons"],
  [["--to", "5"], "--to: expected a number of persons"],
  [["--samples", "0"], "--samples: expected a number"],
  [["--unknown"], "--unknown"],
])("%j is rejected", async (args, message) => {
  const { code, stderr, out } = await growth(args);
  expect([code, stderr, existsSync(out)]).toEqual([2, expect.stringContaining(message), false]);
});
