import { afterAll, describe, expect, test } from "bun:test";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { runScript, serve, temporaryFolder } from "../tests/helpers/support.ts";
import { freePort } from "../tests/helpers/topology.ts";

const folder = await temporaryFolder();
afterAll(() => folder[Symbol.asyncDispose]());

/** `out`: a folder that does not exist yet. */
async function bench(args: string[], env?: Record<string, string>) {
  const out = join(folder.path, crypto.randomUUID());
  return { out, ...(await runScript("stress-test/bench.ts", ["--json", "--out", out, ...args], env)) };
}

const brief = ["--duration", "0.6", "--warmup", "0.1", "--connections", "8"];

describe("against the registry", async () => {
  const registry = await serve();
  afterAll(registry.stop);

  test("all scenarios pass, in closed loop", async () => {
    const before = await registry.count();
    const { code, json, out, stderr } = await bench([...brief, "--url", registry.url]);
    expect([code, stderr]).toEqual([0, expect.stringContaining("report.html")]);
    const scenarios = json.results.map((result: { scenario: string }) => result.scenario);
    expect(scenarios.join(" ")).toBe("create get search mixed invalid");
    let created = 0;
    for (const { passed, problems, requests, statuses, audit, scenario, requestsPerSecond } of json.results) {
      expect({ scenario, passed, problems }).toEqual({ scenario, passed: true, problems: [] });
      expect(audit.countAfter - audit.countBefore).toBe(audit.created);
      expect(audit).toMatchObject({ readBack: Math.min(1000, audit.created), wrong: 0 });
      expect(requestsPerSecond).toBeGreaterThan(0);
      const kinds = scenario === "mixed" ? ["create", "get", "invalid", "search"] : [scenario];
      expect(Object.keys(requests)).toEqual(kinds);
      if (scenario === "invalid") expect(Object.keys(statuses)).toEqual(["400", "422"]);
      created += audit.created;
    }
    expect(await registry.count()).toBe(before + created);
    expect(existsSync(join(out, "report.html"))).toBe(true);
    expect(existsSync(join(out, "mixed-latency.svg"))).toBe(true);
    expect(await Bun.file(join(out, "result.json")).json()).toEqual(json);
  });

  test("open loop sends at the given rate, however slow the answers are", async () => {
    const options = ["--url", registry.url, ..."--scenario get --rate 200".split(" ")];
    const { code, json } = await bench([...brief, ...options]);
    expect(code).toBe(0);
    expect(json.mode).toBe("open loop, 200/s");
    expect(json.results[0].requests.get).toMatchObject({ requests: 120, failed: 0 });
  });
});

test("without --url and without a server on the port, it starts a server and removes it with its data", async () => {
  const temporary = join(folder.path, "own");
  await Bun.write(join(temporary, "kept"), "");
  const { code, json } = await bench([...brief, "--scenario", "create"], {
    PORT: String(freePort()),
    TMPDIR: temporary,
  });
  expect(code).toBe(0);
  expect(json.server).toContain("server.ts");
  expect(json.results[0].audit.countBefore).toBe(0);
  const left = [...new Bun.Glob("pessoas-bench-*").scanSync({ cwd: temporary, onlyFiles: false })];
  expect(left).toEqual([]);
});

/** A registry in memory, with a fault. */
function faulty(
  fault: "loses one" | "changes one" | "invents one" | "is slow once" | "goes away" | "accepts all",
) {
  const persons = new Map<string, object>();
  let [creates, requests] = [0, 0];
  return Bun.serve({
    port: 0,
    async fetch(request, server) {
      const { pathname } = new URL(request.url);
      if (pathname === "/contagem-pessoas") return new Response(String(persons.size));
      const id = pathname.split("/")[2];
      if (id !== undefined)
        return Response.json(persons.get(id) ?? null, { status: persons.has(id) ? 200 : 404 });
      if (request.method === "GET")
        return new Response(null, { status: fault === "accepts all" ? 200 : 400 });
      const body = (await request.json().catch(() => undefined)) as Record<string, unknown> | undefined;
      if (fault === "is slow once" && ++requests === 30) await Bun.sleep(3000);
      if (fault === "goes away" && ++requests === 30) server.stop(true);
      if (body === undefined && fault !== "accepts all") return new Response(null, { status: 400 });
      const made = crypto.randomUUID();
      const bad = ++creates === 20;
      const apelido = fault === "changes one" && bad ? "x" : body?.apelido;
      const { nome, nascimento, stack = null } = body ?? {};
      if (!(fault === "loses one" && bad)) persons.set(made, { id: made, apelido, nome, nascimento, stack });
      if (fault === "invents one" && bad) persons.set("other", {});
      return new Response(null, { status: 201, headers: { Location: `/pessoas/${made}` } });
    },
  });
}

// One connection makes few creates, so the sample that is read back includes the faulty one.
const few = ["--duration", "0.3", "--warmup", "0", "--connections", "1", "--timeout", "1", "--scenario"];

test.each([
  ["loses one", "create", /^the count grew by [\d,]+, but [\d,]+ creates got 201$/],
  ["invents one", "create", /^the count grew by [\d,]+, but [\d,]+ creates got 201$/],
  ["is slow once", "create", /^1 × create: no answer within 1 s$/],
  ["goes away", "create", /^it could not be audited: .*ECONN/],
  ["accepts all", "invalid", /× invalid: expected 4\d\d, got 20\d/],
] as const)("exit 1 against a server that %s (%s)", async (fault, scenario, problem) => {
  await using server = faulty(fault);
  const { code, json } = await bench([...few, scenario, "--url", server.url.href]);
  expect(json.results[0].problems.some((text: string) => problem.test(text))).toBe(true);
  expect([code, json.passed]).toEqual([1, false]);
});

test("exit 1 against a server that changes one (get)", async () => {
  await using server = faulty("changes one");
  // On a busy machine 0.3 s are too short for 20 reads, and the 20th person is the changed one.
  const { code, json } = await bench([...few, "get", "--duration", "2", "--url", server.url.href]);
  expect(code).toBe(1);
  expect(json.results[0]).toMatchObject({ passed: false, audit: { wrong: 1 } });
  expect(json.results[0].problems.join()).toContain("get: the person read differs from the person sent");
});

test.each([
  [["--scenario", "delete"], "--scenario: expected create, get, search, mixed, invalid or all"],
  [["--rate", "0"], "--rate: expected a number from 1 to 20000"],
  [["--connections", "1.5"], "--connections: expected a whole number"],
  [["--url", "nowhere"], "--url: expected a URL"],
  [["--url", "http://127.0.0.1:1", "--duration", "1"], "ECONNREFUSED"],
])("exit 2 for %j", async (args, message) => {
  const { code, stderr } = await bench(args);
  expect([code, stderr]).toEqual([2, expect.stringContaining(message)]);
});
