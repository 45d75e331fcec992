import { afterAll, beforeAll, expect, test } from "bun:test";
import { cp } from "node:fs/promises";
import { join } from "node:path";
import { client, type Found, newPessoa } from "../helpers/requests.ts";
import { newDatabase, spawnServer, temporaryFolder } from "../helpers/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let executable: string;
beforeAll(async () => {
  folder = await temporaryFolder();
  const built = join(folder.path, "built");
  const { exitCode, stderr } = Bun.spawnSync([process.execPath, "run", "build", `--outfile=${built}`], {
    cwd: join(import.meta.dir, "..", ".."),
    stdout: "ignore",
    stderr: "pipe",
  });
  expect([exitCode, stderr.toString()]).toEqual([0, expect.any(String)]);
  executable = join(folder.path, "elsewhere"); // one file is all there is
  await cp(built, executable);
});
afterAll(() => folder[Symbol.asyncDispose]());

test("bun run build: one file that serves everything, /docs included, with a database of one's own", async () => {
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

test("without DATABASE_URL it says so in one line, and ends with status 1", async () => {
  const { child, logged } = await spawnServer({}, [executable]);
  expect(await logged()).toMatch(/^DATABASE_URL: expected a database of yours[^\n]+\n$/);
  expect(child.exitCode).toBe(1);
});
