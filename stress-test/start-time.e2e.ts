import { expect, test } from "bun:test";
import { runScript } from "../tests/helpers/support.ts";

const start = (...args: string[]) => runScript("stress-test/start-time.ts", args);

test("both kinds of start are measured, and the first start is shown separately", async () => {
  const { code, stdout } = await start("--times", "2", "--json");
  expect(code).toBe(0);
  const ms = expect.any(Number);
  expect(JSON.parse(stdout)).toEqual([
    { database: "there", firstMs: ms, ms: [ms, ms] },
    { database: "embedded", firstMs: ms, ms: [ms, ms] },
  ]);
});

test("the table", async () => {
  const { code, stdout } = await start("--times", "1", "--only", "there");
  expect([code, stdout]).toEqual([0, expect.stringMatching(/^PostgreSQL .*\nthere( +\d+){4}\n$/)]);
});

test.each([
  [["--times", "0"], "--times: expected a whole number from 1 to 100"],
  [["--only", "neither"], "--only: expected there or embedded"],
  [["--only", "there", "false"], "false has ended"],
])("exit 2 for %j", async (args, message) => {
  const { code, stderr } = await start(...args);
  expect([code, stderr]).toEqual([2, expect.stringContaining(message)]);
});
