import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { chmod, mkdir, readdir, symlink } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { removeData, runningUrl, startEmbedded } from "../../database/embedded.ts";
import { scripts as commands } from "../../package.json";
import { generate, renderFiles } from "../../stress-test/data/payloads.ts";
import type { Found } from "../helpers/requests.ts";
import { project, runScript, runToEnd, serve, spawnServer, temporaryFolder } from "../helpers/support.ts";

const run = (script: string, env: Record<string, string>, ...args: string[]) =>
  runScript(`tools/${script}`, args, env);

test("seed creates the given number of people, and the same ones again for the same --seed", async () => {
  await using registry = await serve();
  const args = ["30", "--url", registry.url, "--seed", "7", "--concurrency", "1", "--json"];
  const first = await run("seed.ts", {}, ...args);
  expect(first).toMatchObject({ code: 0, stderr: "" });
  expect(JSON.parse(first.stdout)).toMatchObject({ created: 30, taken: 0 });
  expect(await registry.count()).toBe(30);
  const again = await run("seed.ts", {}, ...args);
  expect(JSON.parse(again.stdout)).toMatchObject({ created: 0, taken: 30 });
  const [person] = (await registry.search("a")) as [Found];
  expect(person.nome).toMatch(/^\p{Lu}.* \p{Lu}/u);
});

test("seed prints help, and reports a wrong number and an unreachable registry", async () => {
  expect(await run("seed.ts", {}, "--help")).toMatchObject({
    code: 0,
    stdout: expect.stringContaining("--url"),
  });
  expect(await run("seed.ts", {}, "many")).toMatchObject({
    code: 1,
    stderr: 'N: expected a positive whole number, got "many"\n',
  });
  expect(await run("seed.ts", {}, "--url", "http://127.0.0.1:1")).toMatchObject({
    code: 1,
    stderr: "no answer from http://127.0.0.1:1: start the registry, or give its address with --url\n",
  });
});

test.if(Bun.which("psql") !== null)("db:shell works beside a running server and without one", async () => {
  await using folder = await temporaryFolder();
  const env = { DATA_DIR: folder.path };
  const server = await spawnServer(env);
  expect(server.url).toBeDefined();
  const beside = await run("db.ts", env, "shell", "-Atc", "select count(*) from pessoas");
  expect(beside).toMatchObject({ code: 0, stdout: "0\n" });
  await server.stop();
  const alone = await run("db.ts", env, "shell", "-Atc", "select count(*) from pessoas");
  expect(alone).toMatchObject({ code: 0, stdout: "0\n" });
  expect(await runningUrl(folder.path)).toBeUndefined();
});

test("db:shell reports a missing psql", async () => {
  const { code, stderr } = await run("db.ts", { PATH: "/nowhere" }, "shell");
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^psql is not installed\. [^\n]+\n$/)]);
});

test("db:reset needs --yes, and rejects a folder in use and a DATABASE_URL", async () => {
  await using folder = await temporaryFolder();
  const env = { DATA_DIR: folder.path };
  const cluster = join(folder.path, "pg18");
  const embedded = await startEmbedded(folder.path, () => {});
  expect(await runningUrl(folder.path)).toBe(embedded.url);
  expect(await run("db.ts", env, "reset")).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("add --yes"),
  });
  const used = await run("db.ts", env, "reset", "--yes");
  expect(used).toMatchObject({ code: 1, stderr: expect.stringContaining("another server is running") });
  await expect(removeData(folder.path, () => {})).rejects.toThrow("another server is running");
  await embedded.stop();
  const other = await run("db.ts", { ...env, DATABASE_URL: "postgres://a@b/c" }, "reset", "--yes");
  expect(other).toMatchObject({ code: 1, stderr: expect.stringMatching(/^DATABASE_URL: /) });
  expect(existsSync(cluster)).toBe(true);
  expect(await run("db.ts", env, "reset", "--yes")).toMatchObject({ code: 0 });
  expect(existsSync(cluster)).toBe(false);
  await removeData(folder.path, () => {}); // nothing is left to remove
});

describe("the arguments of every script", async () => {
  const texts = new Map<string, string>();
  const places = ["{tests,tools,stress-test}/**/*.{ts,sh}", "docs/images/*.sh", ".ci/run", "server.ts"];
  for (const place of places) {
    for await (const path of new Bun.Glob(place).scan({ cwd: project, dot: true })) {
      const text = await Bun.file(join(project, path)).text();
      // tests/judge/bad is an entry to judge, started in a container.
      if (!text.includes('from "bun:test"') && !path.startsWith("tests/judge/bad/")) texts.set(path, text);
    }
  }
  // Scripts, and modules, which do nothing when they are started.
  const starts = /\bimport\.meta\.main\b|\bprocess\.argv\b|^#!/m;
  const isScript = (text: string) => starts.test(text) || !/^export (?!\{\})/m.test(text);
  const scripts = [...texts].filter(([, text]) => isScript(text)).map(([path]) => path);
  const modules = [...texts].filter(([, text]) => !isScript(text)).map(([path]) => path);
  const named = Object.entries(commands).filter(([, command]) =>
    /\bbun (run|--watch) [\w/-]+\.ts/.test(command),
  );

  const folder = await temporaryFolder();
  afterAll(() => folder[Symbol.asyncDispose]());
  const bin = join(folder.path, "bin");
  const work = join(folder.path, "work");
  const calls = join(folder.path, "calls");
  await mkdir(work);
  // Fake programs that record each call and fail.
  const programs = "docker npx npm psql pg_dump pg_restore chromium python3 java mvn curl git perf";
  for (const name of programs.split(" ")) {
    await Bun.write(join(bin, name), `#!/bin/sh\necho "${name} $*" >>${calls}\nexit 99\n`);
    await chmod(join(bin, name), 0o755);
  }
  await symlink(process.execPath, join(bin, "bun"));

  async function started(command: string[]) {
    const { stdout, stderr, code } = await runToEnd(command, {
      cwd: work,
      env: {
        PATH: [bin, "/usr/bin", "/bin"].join(delimiter),
        TMPDIR: work,
        HOME: folder.path,
        DATA_DIR: join(work, "data"),
      },
    });
    const called = await Bun.file(calls)
      .text()
      .catch(() => "");
    return { code, stdout, stderr, called, made: await readdir(work) };
  }
  const run = (path: string, ...args: string[]) =>
    started([...(path.endsWith(".ts") ? [process.execPath, "run"] : ["bash"]), join(project, path), ...args]);
  const nothing = { called: "", made: [] };
  const oneLine = expect.stringMatching(/^[^\n]+\n$/);

  test("the scripts and modules are found", () => {
    expect(scripts).toContain("tests/contest/run.ts");
    expect(scripts).toContain("stress-test/run-test.sh");
    expect(modules).toContain("tests/helpers/support.ts");
    expect([scripts.length > 20, named.length > 15]).toEqual([true, true]);
  });

  test.each(scripts)("%s --help prints help and does nothing", async (path) => {
    const asked = await run(path, "--help");
    expect(asked).toEqual({ code: 0, stdout: expect.stringMatching(/\S.*\n$/s), stderr: "", ...nothing });
  });

  test.each(scripts)("%s rejects an unknown argument in one line", async (path) => {
    for (const args of [["--no-such-option"], ["one", "two", "three"]]) {
      const { code, ...rest } = await run(path, ...args);
      expect([1, 2]).toContain(code);
      expect(rest).toEqual({ stdout: "", stderr: oneLine, ...nothing });
    }
  });

  test.each(modules)("%s is a module and does nothing when it is run", async (path) => {
    expect(await run(path, "--help")).toEqual({ code: 0, stdout: "", stderr: "", ...nothing });
  });

  test.each(named)("bun run %s accepts your arguments", async (_, command) => {
    const [path = "", ...args] = command.replace(/^.*\bbun (run|--watch) /, "").split(" ");
    expect(scripts).toContain(path);
    if (args.length === 0) return;
    const asked = await run(path, ...args, "--help");
    expect(asked).toEqual({ code: 0, stdout: expect.stringMatching(/\S.*\n$/s), stderr: "", ...nothing });
    if (args[0] === "shell") return; // its options go to psql
    const { code, ...rest } = await run(path, ...args, "--no-such-option");
    expect([code, rest]).toEqual([1, { stdout: "", stderr: oneLine, ...nothing }]);
  });

  test.each([
    ["tools/seed.ts", "1", "2"],
    ["tools/screenshots.ts", "a", "b"],
    ["tools/db.ts", "reset", "all"],
    ["tools/db.ts", "reset", "--force"],
    ["tools/db.ts", "toString"],
  ] as [string, ...string[]][])("%s refuses %s %s", async (...given) => {
    expect(await run(...given)).toEqual({
      code: expect.any(Number),
      stdout: "",
      stderr: oneLine,
      ...nothing,
    });
  });
});

describe("stress-test/replay.ts", () => {
  const replay = (...args: string[]) => runScript("stress-test/replay.ts", args);
  const payloads = generate(1, 200, 1).rows.map(({ payload }) => payload);

  test.each([
    ["what generate.ts writes", renderFiles(1, 200, 1)["pessoas-payloads.tsv"] as string],
    ["the contest's one column", `payload\n${payloads.join("\n")}\n`],
    ["lines that end as on Windows, and a last line without an end", `payload\r\n${payloads.join("\r\n")}`],
  ])("accepts %s", async (_, text) => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "payloads.tsv");
    await Bun.write(file, text);
    await using registry = await serve();
    const options = ["--url", registry.url, "--concurrency", "8", "--json"];
    const { code, stdout, stderr } = await replay(file, ...options);
    expect([code, stderr]).toEqual([0, ""]);
    expect(JSON.parse(stdout)).toMatchObject({ sent: 200, differences: [] });
  });

  test("rejects a file without payloads", async () => {
    await using folder = await temporaryFolder();
    const file = join(folder.path, "terms.tsv");
    await Bun.write(file, "t\tpayload\nx\t{}\n");
    const { code, stderr } = await replay(file);
    const oneLine = expect.stringMatching(/^\S+: expected "payload" as the first column .*\n$/);
    expect([code, stderr]).toEqual([2, oneLine]);
  });

  test("the commands in docs/benchmarking.md and docs/scaling.md name the file that generate.ts writes", async () => {
    for (const path of ["docs/benchmarking.md", "docs/scaling.md"]) {
      const text = await Bun.file(join(project, path)).text();
      const [, folder] = /^bun run stress-test\/generate\.ts --out (\S+)$/m.exec(text) ?? [];
      const command = expect.stringContaining(`stress-test/replay.ts ${folder}/pessoas-payloads.tsv`);
      expect([path, text]).toEqual([path, command]);
    }
  });
});
