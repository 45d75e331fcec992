import { afterAll, beforeEach, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { renderFiles } from "../data/payloads.ts";
import { expectAnswers, type Pessoa, readPessoa } from "../data/reference-contract.ts";
import { spread } from "./audit.ts";
import { readLog } from "./gatling.ts";
import { percentile } from "./statistics.ts";
import { judge, judgeCreated, render } from "./verdict.ts";

const folder = mkdtempSync(join(tmpdir(), "verdict test "));
afterAll(() => rmSync(folder, { recursive: true }));

describe("simulation.log", () => {
  test("requests, failures by kind and crashed users", () => {
    const log = readLog(
      [
        "RUN\tRinhaBackendSimulation\trinhabackendsimulation\t1000\tseed 1\t3.9.5",
        "USER\tsearch\tSTART\t1001",
        "REQUEST\t\tcreate\t1001\t1011\tOK\t ",
        "REQUEST\t\tcreate\t1002\t1042\tKO\tstatus.find.in(201), found 500",
        "REQUEST\t\tread\t1050\t1051\tKO\tbodyString.find.transform.is(), found not JSON: <html>1",
        "REQUEST\t\tread\t1050\t1052\tKO\tbodyString.find.transform.is(), found not JSON: <html>2",
        "ERROR\tfeeder is empty\t1060",
        "",
      ].join("\n"),
    );
    expect(log).toMatchObject({
      description: "seed 1",
      startMs: 1000,
      endMs: 1052,
      errors: ["feeder is empty"],
    });
    expect(log.requests.map(({ kind, ms, failed }) => `${kind}: ${ms}${failed ? ", failed" : ""}`)).toEqual([
      "create: 10",
      "create: 40, failed",
      "read: 1, failed",
      "read: 2, failed",
    ]);
    expect(log.failures.map(({ request, message, times }) => [request, message, times])).toEqual([
      ["read", "not JSON", 2],
      ["create", "status.find.in(201), found 500", 1],
    ]);
  });

  test("percentiles by nearest rank", () => {
    const values = Array.from({ length: 200 }, (_, index) => index + 1);
    expect([50, 95, 99, 100].map((p) => percentile(values, p))).toEqual([100, 190, 198, 200]);
    expect(percentile([7], 50)).toBe(7);
  });

  test("a sample is spread from the first item to near the last", () => {
    expect(spread([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 4)).toEqual([0, 2, 5, 7]);
    expect(spread([1, 2], 4)).toEqual([1, 2]);
  });
});

describe("answers with 201", () => {
  const body = (apelido: string, nome = "x") => JSON.stringify({ apelido, nome, nascimento: "2000-01-01" });
  const rows = expectAnswers([body("a"), body("b", ""), body("a"), body("c"), body("d")]);

  test.each([
    ["in order", [0, 3, 4], []],
    ["the second of two rows with one apelido", [2, 3, 4], []],
    ["both rows with one apelido", [0, 2, 3, 4], ['"a" got 201 twice']],
    ["no row with an apelido", [0, 4], ['"c" (row 3) is valid and never got 201']],
    ["an invalid row", [0, 1, 3, 4], ["row 1 got 201"]],
    ["a row that was not sent", [0, 3, 4, 5], ["row 5 got 201"]],
  ])("%s", (_, created, problems) => {
    const found = judgeCreated(
      rows,
      created.map((row) => ({ row, location: `/pessoas/${row}` })),
      rows.length,
    );
    expect(found).toHaveLength(problems.length);
    for (const [index, problem] of problems.entries()) expect(found[index]).toStartWith(problem);
  });

  test("rows that were not sent are not expected", () => {
    expect(judgeCreated(rows, [{ row: 0, location: "/pessoas/0" }], 3)).toEqual([]);
  });
});

describe("verdict", () => {
  type Stored = Pessoa & { id: string };
  let stored: Map<string, Stored>;
  let unsearchable: string | undefined;

  const server = Bun.serve({
    port: 0,
    fetch(req) {
      const url = new URL(req.url);
      if (url.pathname === "/contagem-pessoas") return new Response(String(stored.size));
      const term = url.searchParams.get("t")?.toLowerCase();
      if (term === undefined) {
        const person = stored.get(url.pathname.replace("/pessoas/", ""));
        return person ? Response.json(person) : new Response(null, { status: 404 });
      }
      const hits = [...stored.values()].filter(({ id, apelido, nome, stack }) => {
        return (
          id !== unsearchable &&
          [apelido, nome, ...(stack ?? [])].some((text) => text.toLowerCase().includes(term))
        );
      });
      return Response.json(hits.slice(0, 50));
    },
  });
  afterAll(() => server.stop(true));

  // A finished run against a registry without faults: the rows were sent in order.
  const sent = 300;
  const files = renderFiles(2, 400, 20);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const rows = expectAnswers(
    (files["pessoas-payloads.tsv"] ?? "")
      .split("\n")
      .slice(1, -1)
      .map((line) => line.split("\t")[0] ?? ""),
  );
  const persons = rows.slice(0, sent).flatMap(({ payload, status }, row): Stored[] => {
    const pessoa = readPessoa(payload);
    return status === 201 && typeof pessoa === "object" ? [{ id: `id-${row}`, ...pessoa }] : [];
  });
  writeFileSync(
    join(folder, "created.tsv"),
    persons.map(({ id }) => `${id.slice(3)}\t/pessoas/${id}\n`).join(""),
  );
  const log = (ko: string) =>
    `RUN\tS\ts\t1000\tseed 2\t3.9.5\n${"REQUEST\t\tcreate\t1000\t1002\tOK\t \n".repeat(sent - 1)}REQUEST\t\tcreate\t1000\t1004\t${ko}\n`;

  beforeEach(() => {
    stored = new Map(persons.map((person) => [person.id, person]));
    unsearchable = undefined;
    writeFileSync(join(folder, "simulation.log"), log("OK\t "));
  });
  const run = (countBefore = 0) =>
    judge({
      results: folder,
      data: folder,
      baseUrl: server.url.href,
      countBefore,
      searches: 40,
      pollMs: 1,
    });
  const victim = () => persons[0] as Stored;

  test("passes when all persons are stored", async () => {
    const verdict = await run();
    expect(verdict.problems).toEqual([]);
    expect(verdict).toMatchObject({
      passed: true,
      creates: sent,
      count: { stored: persons.length, maximum: persons.length, answered201: persons.length },
      requests: { create: { requests: sent, failed: 0, p50: 2, p99: 2, max: 4 } },
      readBack: { persons: persons.length, lost: 0, changed: 0 },
      searches: { checked: 40, wrong: 0 },
    });
    expect(render(verdict)).toStartWith("PASSED  seed 2\n");
    expect(render(verdict, verdict)).toContain("4 ×1.00");
  });

  test("fails when one person is lost", async () => {
    stored.delete(victim().id);
    const verdict = await run();
    expect(verdict).toMatchObject({ passed: false, readBack: { lost: 1 } });
    expect(verdict.problems.join("\n")).toContain(`lost: "${victim().apelido}"`);
    expect(render(verdict)).toStartWith("FAILED");
  });

  test("fails when one person is lost and the count is still right, because of a person that was never sent", async () => {
    stored.delete(victim().id);
    stored.set("other", { ...victim(), id: "other" });
    expect(await run()).toMatchObject({
      passed: false,
      count: { stored: persons.length },
      readBack: { lost: 1 },
    });
  });

  test.each<[string, Partial<Stored> & { extra?: number }]>([
    ["the case of its apelido", { apelido: "changed" }],
    ["its stack", { stack: ["Go "] }],
    ["its id", { id: "other" }],
    ["an additional member", { extra: 1 }],
  ])("fails when one person changed: %s", async (_, change) => {
    stored.set(victim().id, { ...victim(), ...change });
    expect(await run()).toMatchObject({ passed: false, readBack: { lost: 0, changed: 1 } });
  });

  test("fails when a search does not find a person that matches", async () => {
    unsearchable = victim().id;
    expect((await run()).searches.wrong).toBeGreaterThan(0);
  });

  test("fails when one request failed", async () => {
    writeFileSync(join(folder, "simulation.log"), log("KO\tstatus.find.in(201), found 500"));
    const verdict = await run();
    expect(verdict).toMatchObject({ passed: false, problems: ["1 requests failed"] });
    expect(render(verdict)).toContain("1 × create: status.find.in(201), found 500");
  });

  test("persons from before the run are subtracted", async () => {
    stored.set("earlier", { ...victim(), id: "earlier" });
    expect(await run(1)).toMatchObject({ passed: true, count: { before: 1, stored: persons.length } });
    expect(await run(0)).toMatchObject({ passed: false });
  });
});
