import { expect, test } from "bun:test";
import { join } from "node:path";
import { project, temporaryFolder } from "../helpers/support.ts";

const minute = 60_000;

test.each([["test"], ["e2e"], ["browser"]])(
  "every test and hook in a *.%s.ts file has a minute, not Bun's default",
  async (kind) => {
    await using folder = await temporaryFolder();
    const slow = "async () => { await Bun.sleep(40); }";
    const hooks = ["beforeAll", "beforeEach", "afterEach", "afterAll"];
    const content = [
      `import { ${hooks.join(", ")}, describe, test } from "bun:test";`,
      ...hooks.map((hook) => `${hook}(${slow});`),
      `test("first level", ${slow});`,
      `describe("second level", () => { beforeAll(${slow}); test("in it", ${slow}); });`,
    ].join("\n");
    // Two files, because setDefaultTimeout in a preload affects the first one only.
    const names = ["a", "b"].map((name) => `./${name}.${kind}.ts`);
    for (const name of names) await Bun.write(join(folder.path, name), content);
    const preload = join(project, "tests", "helpers", "setup.ts");
    const run = Bun.spawnSync([process.execPath, "test", "--timeout=10", "--preload", preload, ...names], {
      cwd: folder.path,
      env: { PATH: process.env.PATH ?? "", DATABASE_URL: "postgres://unused@127.0.0.1/unused" },
    });
    expect([run.exitCode, run.stderr.toString()]).toEqual([0, expect.stringContaining(" 4 pass\n 0 fail\n")]);
  },
);

test("no test, hook or file sets a timeout of less than a minute", async () => {
  const short: string[] = [];
  let checked = 0;
  for await (const path of new Bun.Glob("{tests,stress-test}/**/*.{test,e2e,browser}.ts").scan(project)) {
    const text = await Bun.file(join(project, path)).text();
    checked++;
    for (const { line, ms } of timeoutsIn(text)) {
      if (!(ms >= minute)) short.push(`${path}:${line}: ${ms} ms`);
    }
  }
  expect(checked).toBeGreaterThan(25);
  expect(short).toEqual([]);
});

test.each([
  ['test("a", () => {}, 5000);', [5000]],
  ['test("a", async () => {\n}, 30_000);', [30_000]],
  ["beforeAll(async () => {\n  await x(1, 2);\n}, shortMs);\nconst shortMs = 9_000;", [9_000]],
  ['test.each([1])(\n  "a",\n  async () => {\n    x();\n  },\n  startupMs,\n);', [Number.NaN]],
  ['test("a", () => {}, { timeout: 100 });', [100]],
  ["setDefaultTimeout(1e3);", [1000]],
  ['test("a", () => { expect([1, 2]).toEqual(new Array(2_000)); });', []],
])("timeouts are recognised in %j", (text, expected) => {
  expect(timeoutsIn(text).map(({ ms }) => ms)).toEqual(expected);
});

/** The timeouts of tests, hooks and setDefaultTimeout in a text that Biome has formatted; NaN if unknown. */
function timeoutsIn(text: string): { line: number; ms: number }[] {
  const value = String.raw`(?<value>[\d_.e]+|\w*Ms)`;
  const call = String.raw`(?:test|it|(?:before|after)(?:All|Each))\b.*`;
  // A call and its body: indented lines, or the end of a table of test.each.
  const several = String.raw`^(?<indent> *)${call}\n(?:\k<indent>(?: |\]\)).*\n|\n)*?`;
  const places = [
    String.raw`${several}\k<indent>\}, ${value}\);$`, // }, 60_000);
    String.raw`${several}\k<indent> +${value},\n\k<indent>\);$`,
    String.raw`^ *${call}, ${value}\);$`, // all in one line
    String.raw`^(?: *${call}| *\}), \{ timeout: ${value} \}\);$`,
    String.raw`^ *setDefaultTimeout\(${value}\)`,
  ];
  return [...text.matchAll(new RegExp(places.join("|"), "gm"))].map((match) => {
    const given = match.groups?.value as string;
    const constant = new RegExp(String.raw`\b${given} = ([\d_.e]+);`).exec(text)?.[1];
    const line = text.slice(0, match.index + match[0].length).split("\n").length;
    return { line, ms: Number((constant ?? given).replaceAll("_", "")) };
  });
}
