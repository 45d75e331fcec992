// Judges this checkout and an entry that is wrong on purpose, and compares the verdicts with those that they deserve. Needs
// Docker with Compose.
import assert from "node:assert/strict";
import { join } from "node:path";
import type { Judged } from "../../stress-test/judge/report.ts";
import { readPositionals } from "../../tools/arguments.ts";
import { temporaryFolder } from "../helpers/support.ts";
import { freePort } from "../helpers/topology.ts";

readPositionals(`Usage: bun run test:judge

Judges this checkout and tests/judge/bad with bun run judge --short, on a port and under project names of its own, and
compares their verdicts with those that they deserve. Takes 4 minutes. Needs Docker with Compose.`);

const root = join(import.meta.dir, "..", "..");
await using folder = await temporaryFolder("judge");
const out = folder.path;
const [port, metricsPort] = [freePort(), freePort()];
const options = ["--short", "--out", out, "--port", `${port}`];
options.push("--env", `PORT=${port}`, "--env", `METRICS_PORT=${metricsPort}`);
const judging = Bun.spawn(
  [process.execPath, "run", "stress-test/judge.ts", "ours=.", "tests/judge/bad", ...options],
  { cwd: root, stdin: "ignore", stdout: "inherit", stderr: "inherit" },
);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, () => judging.kill(signal));

const code = await judging.exited;
assert.equal(code, 0, "the judge could not judge");
const { entries } = (await Bun.file(join(out, "result.json")).json()) as { entries: Judged[] };
assert.deepEqual(
  entries.map(({ name }) => name),
  ["ours", "bad"],
);
const [good, bad] = entries.map(({ sections }) => sections);
const verdicts = (sections: Judged["sections"] = {}) =>
  Object.fromEntries(Object.entries(sections).map(([name, { verdict }]) => [name, verdict]));
const wrong = (sections: Judged["sections"] = {}) =>
  Object.values(sections)
    .flatMap(({ evidence }) => evidence)
    .filter(({ outcome }) => outcome === "wrong")
    .map(({ rule }) => rule)
    .sort();
const right = { rules: "right", race: "right", durable: "right", score: "right", cost: "right" };
assert.deepEqual([verdicts(good), wrong(good)], [right, []]);
assert.deepEqual(verdicts(bad), { ...right, rules: "wrong", durable: "wrong" });
assert.deepEqual(wrong(bad), [
  "everything (api, db)",
  'lengths: apelido "uniqueã×26"',
  'lengths: apelido "unique李×26"',
  'lengths: nome "é×100"',
  'lengths: stack ["ã×32"]',
  "search across elements: um9 9dois",
  "search across fields: começo um9",
  "search across fields: fim7 8",
  "the application (api)",
]);
console.log("both verdicts are right");
