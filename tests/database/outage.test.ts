import { afterAll, describe, expect, test } from "bun:test";
import { readFile, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { startEmbedded } from "../../database/embedded.ts";
import { expectAll, postmasterPid } from "../helpers/crash.ts";
import { client, type Found, newPessoa } from "../helpers/requests.ts";
import { silentProxy } from "../helpers/silent-proxy.ts";
import { serve, temporaryFolder } from "../helpers/support.ts";

const quiet = () => {};
const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());

async function childrenOf(pid: number): Promise<number[]> {
  const children = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
  return children.trim().split(" ").map(Number);
}

describe("when the database is unreachable", () => {
  // The server connects through this link; the database behind it stops and starts.
  const link = join(folder.path, "pg");
  const dataDir = join(folder.path, "data");

  async function startDatabase() {
    const embedded = await startEmbedded(dataDir, quiet);
    await rm(link, { force: true });
    await symlink(new URL(embedded.url).searchParams.get("host") as string, link);
    return embedded;
  }
  const databaseUrl = () => `postgres://pessoas@localhost/postgres?host=${encodeURIComponent(link)}`;

  /** Resolves when a create gets 201 again; until then only 503 is allowed. */
  async function recovered(registry: { url: string }) {
    for (;;) {
      const { status } = await client(registry.url).post(newPessoa());
      if (status === 201) return;
      expect(status).toBe(503);
    }
  }

  async function expectUnavailable(registry: { url: string }) {
    const { get, post } = client(registry.url);
    const unknown = `/pessoas/${crypto.randomUUID()}`;
    const requests = [
      post(newPessoa()),
      get(unknown),
      get("/pessoas?t=a"),
      get("/contagem-pessoas"),
      get("/readyz"),
    ];
    for (const answer of await Promise.all(requests)) {
      expect(answer.status).toBe(503);
      expect(answer.headers.get("retry-after")).toBe("1");
      expect(answer.headers.get("content-type")).toBe("application/problem+json");
    }
    expect((await get("/healthz")).status).toBe(200);
  }

  test("requests get 503, also right after the server's start, and succeed when the database starts", async () => {
    const registry = await serve({ DATABASE_URL: databaseUrl(), DB_TIMEOUT_MS: "300" });
    await expectUnavailable(registry);
    let embedded = await startDatabase();
    await recovered(registry);
    await embedded.stop();
    await expectUnavailable(registry);
    embedded = await startDatabase();
    await recovered(registry);
    expect((await client(registry.url).get("/readyz")).status).toBe(200);
    await registry.stop();
    await embedded.stop();
  });

  test("requests get 503 while the database is frozen, except for cached persons, and succeed when it continues", async () => {
    const embedded = await startDatabase();
    const registry = await serve({ DATABASE_URL: databaseUrl(), DB_TIMEOUT_MS: "300" });
    const person = await registry.create();
    const postmaster = await postmasterPid(dataDir);
    const children = await childrenOf(postmaster);
    const signal = (name: "SIGSTOP" | "SIGCONT") => {
      for (const pid of [postmaster, ...children]) process.kill(pid, name);
    };
    signal("SIGSTOP");
    await expectUnavailable(registry);
    await expectUnavailable(registry); // long enough to abandon the connections
    await expectUnavailable(registry);
    expect(await (await registry.get(`/pessoas/${person.id}`)).json()).toEqual(person);
    signal("SIGCONT");
    await recovered(registry);
    await registry.stop();
    await embedded.stop();
  });

  test("a killed embedded database is started again as soon as its last process has ended", async () => {
    const lines: string[] = [];
    let held: number | undefined;
    const { promise: tried, resolve } = Promise.withResolvers<void>();
    const embedded = await startEmbedded(dataDir, (line) => {
      lines.push(line);
      if (!held || !line.includes("did not start")) return;
      process.kill(held, "SIGCONT");
      held = undefined;
      resolve();
    });
    const registry = await serve({ DATABASE_URL: embedded.url });
    const created = (await Promise.all(Array.from({ length: 40 }, () => registry.create()))) as Found[];
    const postmaster = await postmasterPid(dataDir);
    held = (await childrenOf(postmaster))[0] as number; // not a backend
    process.kill(held, "SIGSTOP");
    process.kill(postmaster, "SIGKILL");
    await tried;
    await recovered(registry);
    expect(lines[0]).toBe("PostgreSQL has stopped unexpectedly: starting it again");
    expect(lines[1]).toStartWith("PostgreSQL did not start in");
    await expectAll(registry.url, created);
    await registry.stop();
    await embedded.stop();
  });
});

test("after an answer that ended within its rows, the next answers are complete", async () => {
  await using owner = await serve();
  const nome = `Cut ${crypto.randomUUID()}`;
  for (let i = 0; i < 3; i++) await owner.post({ ...newPessoa(), nome });

  using proxy = await silentProxy(owner.databaseUrl);
  await using registry = await serve({ DATABASE_URL: proxy.url });
  expect(await registry.search(nome)).toHaveLength(3);
  for (let i = 0; i < 3; i++) {
    const cut = proxy.fault({ at: "row", close: true });
    const path = `/pessoas?t=${encodeURIComponent(nome)}`;
    expect((await registry.get(path)).status).toBe(503);
    await cut;
    let answer = await registry.get(path);
    while (answer.status === 503) answer = await registry.get(path); // it reconnects
    expect(await answer.json()).toHaveLength(3);
  }
});
