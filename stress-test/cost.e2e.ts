import { afterAll, describe, expect, test } from "bun:test";
import { runScript, serve } from "../tests/helpers/support.ts";
import { freePort } from "../tests/helpers/topology.ts";
import { startGenerator } from "./cost.ts";
import type { Load, Sent } from "./load/cost-loads.ts";

/** Sends one slice of each load, one after the other, from a new generator. */
async function send(port: number, loads: Load[], seconds = 0.5): Promise<Sent[]> {
  const url = `http://127.0.0.1:${port}`;
  const { order, report, stop } = startGenerator({ url, seed: 5, rows: 2000, rate: 200 });
  const sent: Sent[] = [];
  try {
    for (const load of loads) {
      order({ prepare: load, seconds });
      expect(await report()).toBe("ready");
      order("go");
      expect(await report()).toBe("ended");
      sent.push((await report()) as Sent);
    }
  } finally {
    stop();
  }
  return sent;
}

describe("against the registry", async () => {
  const registry = await serve();
  afterAll(registry.stop);

  test("every load is answered as expected, and the count is the number of 201s", async () => {
    const { port } = new URL(registry.url);
    const loads: Load[] = ["official", "saturation", "reads", "official"];
    const [official, saturation, reads, again] = await send(Number(port), loads);
    for (const sent of [official, saturation, reads, again]) {
      expect(sent?.faults).toEqual({});
      expect(sent?.cpuS).toBeGreaterThan(0);
    }
    expect(Object.keys(official?.requests ?? {})).toEqual(["create", "read", "search", "search without t"]);
    expect(official?.requests.read?.requests).toBe(official?.created as number);
    expect(official?.requests.create?.requests).toBeGreaterThan(official?.created as number); // invalid ones, too
    expect(official?.late?.p99).toBeGreaterThan(0);
    expect(saturation).toMatchObject({ requests: { create: { requests: saturation?.created } }, late: null });
    expect(Object.keys(reads?.requests ?? {})).toEqual(["read"]);
    const created = [official, saturation, again].reduce((sum, sent) => sum + (sent?.created ?? 0), 0);
    expect(await registry.count()).toBe(created);
  });
});

/** A registry that stores nothing, with a fault at every 20th request. */
function faulty(
  fault: "503" | "hangs up" | "another person" | "no HTTP" | "no Location" | "silence" | "accepts all",
) {
  let requests = 0;
  const answer = (status: string, more: string, body: string) =>
    `HTTP/1.1 ${status}\r\n${more}content-length: ${body.length}\r\n\r\n${body}`;
  return Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      data(socket, bytes) {
        const text = bytes.toString();
        const path = /^\S+ (\S+)/.exec(text)?.[1] ?? "";
        const bad = ++requests % 20 === 0;
        if (bad && fault === "503") return void socket.write(answer("503 Service Unavailable", "", ""));
        if (bad && fault === "hangs up") return void socket.end();
        if (bad && fault === "silence") return;
        if (bad && fault === "no HTTP") return void socket.write("hello\r\n\r\n");
        if (text.startsWith("POST")) {
          const location = bad && fault === "no Location" ? "" : `location: /pessoas/${requests}-person\r\n`;
          return void socket.write(answer("201 Created", location, "{}"));
        }
        const id = bad && fault === "another person" ? "" : path.split("/").at(-1);
        if (path === "/pessoas" && fault !== "accepts all")
          return void socket.write(answer("400 Bad Request", "", ""));
        socket.write(answer("200 OK", "", `["${id}"]`));
      },
    },
  });
}

test.each([
  ["503", "saturation", /^create: expected 201, got 503$/],
  ["hangs up", "saturation", /^create: the connection was closed$/],
  ["no HTTP", "saturation", /^create: this is no answer in HTTP\/1\.1$/],
  ["no Location", "saturation", /^create: 201 without a Location$/],
  ["silence", "saturation", /^create: no answer within 10 s$/],
  ["silence", "official", /^(create|read): no answer within 10 s$/],
  ["another person", "reads", /^read: the body does not hold what it has to$/],
  ["accepts all", "official", /^search without t: expected 400, got 200$/],
  ["accepts all", "official", /^create: expected 4\d\d, got 201$/],
  ["accepts all", "official", /^create: \d+ × 201, expected \d+$/],
] as const)("a server with the fault “%s” is found out (%s: %p)", async (fault, load, expected) => {
  const server = faulty(fault);
  try {
    const sent = await send(server.port, load === "reads" ? ["saturation", "reads"] : [load], 0.3);
    const { faults, requests } = sent.at(-1) as Sent;
    expect(Object.keys(faults).filter((text) => expected.test(text)).length).toBeGreaterThan(0);
    expect(Object.values(requests).some(({ failed }) => failed > 0)).toBe(true);
  } finally {
    server.stop(true);
  }
});

test("a generator without any answer ends, and the error says so", async () => {
  await expect(send(freePort(), ["saturation"])).rejects.toThrow("the load generator has ended");
});

const run = (...args: string[]) => runScript("stress-test/cost.ts", args);

test.each([
  [["--only", "all"], "--only: expected official, saturation, reads"],
  [["--rate", "0"], "--rate: expected a number from 1 to 2000"],
  [["--rounds", "1.5"], "--rounds: expected a whole number"],
  [["--against", "/"], "--against: there is no docker-compose.yml in /"],
  [["--people", "20m"], "--people: expected a number of persons from 0 to 10000000"],
  [["--people", "1m", "--against-people", "all"], "--against-people: expected a number of persons"],
  [["--override", "none.yml"], "--override: there is no file none.yml"],
])("exit 2 for %j", async (args, message) => {
  const { code, stderr } = await run(...args);
  expect([code, stderr]).toEqual([2, expect.stringContaining(message)]);
});
