import { expect, test } from "bun:test";
import { evenly } from "./arrivals.ts";
import { type GeneratorOptions, generator } from "./generator.ts";
import type { Request } from "./http.ts";
import { mix, read } from "./requests.ts";

/** A server that answers with the bytes of `answer`, and a generator for it. */
function peer(answer: (nth: number) => string | Promise<string>, options: Partial<GeneratorOptions> = {}) {
  let [requests, connections, most] = [0, 0, 0];
  const listener = Bun.listen({
    hostname: "127.0.0.1",
    port: 0,
    socket: {
      open() {
        most = Math.max(most, ++connections);
      },
      close: () => void connections--,
      async data(socket) {
        const bytes = await answer(++requests);
        if (bytes === "") socket.terminate();
        else socket.write(bytes);
      },
    },
  });
  const load = generator({ url: `http://127.0.0.1:${listener.port}`, ...options });
  return {
    load,
    requests: () => requests,
    mostConnections: () => most,
    [Symbol.dispose]() {
      load.close();
      listener.stop(true);
    },
  };
}

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]";
const request = (): Request => read("/pessoas/1");
const times = (n: number) => () => (n-- > 0 ? request() : undefined);

test("a closed loop sends all requests over at most as many connections as users, and ends", async () => {
  using server = peer(() => ok, { connections: 3 });
  const { answered, results } = server.load.closed({ users: 3, next: times(50) });
  await answered;
  expect([results.length, server.requests(), server.mostConnections()]).toEqual([50, 50, 3]);
  expect(results.map(({ kind, status, fault }) => [kind, status, fault])).toContainEqual(["read", 200, ""]);
});

test("an open loop sends each request when it is due, without waiting for answers; requests queue for a connection", async () => {
  const { promise, resolve } = Promise.withResolvers<string>();
  using server = peer(() => promise, { connections: 2 });
  const { sent, answered, results } = server.load.open({ arrivals: evenly(1000, 0.05), next: request });
  await sent;
  expect(results).toEqual([]);
  const sentMs = performance.now();
  resolve(ok);
  await answered;
  expect([results.length, server.requests(), server.mostConnections()]).toEqual([50, 50, 2]);
  // The first latency includes the wait for the answer, because it counts from when the request was due.
  const [first] = results;
  expect((first?.dueMs ?? 0) + (first?.ms ?? 0)).toBeGreaterThanOrEqual(sentMs);
});

test("with a connection per user, the following request uses the same connection, which then closes", async () => {
  using server = peer(() => ok, { connectionPerUser: true });
  const next = (): Request => ({ ...request(), follow: () => ({ request: request(), afterMs: 0 }) });
  const { answered, results } = server.load.open({ arrivals: [0, 0, 0], next });
  await answered;
  expect([results.length, server.mostConnections()]).toEqual([6, 3]);
});

test("an answer with Connection: close ends its connection, and the next request opens another one", async () => {
  using server = peer(() => ok.replace("Content", "Connection: close\r\nContent"), { connections: 1 });
  const { answered, results } = server.load.closed({ users: 1, next: times(5) });
  await answered;
  expect(results.map(({ fault }) => fault)).toEqual(["", "", "", "", ""]);
});

test("a request without an answer is a fault, and the loop gives up after a number of them", async () => {
  using server = peer((nth) => (nth > 2 ? "" : ok), { connections: 1, giveUpAfter: 2 });
  const { answered, results } = server.load.closed({ users: 1, next: request });
  await answered;
  expect(results.map(({ status }) => status)).toEqual([200, 200, 0, 0]);
  expect(results.at(-1)?.fault).toBe("the connection was closed");
});

test("a request that takes too long is given up, on a connection or in the queue", async () => {
  using server = peer(() => new Promise<string>(() => {}), { connections: 1, timeoutMs: 50 });
  const { answered, results } = server.load.open({ arrivals: [0, 0, 0], next: request });
  await answered;
  expect(results.map(({ status, fault }) => [status, fault])).toEqual(
    new Array(3).fill([0, "no answer within 0.05 s"]),
  );
});

test("closing the generator ends its loops and fails requests in flight", async () => {
  using server = peer(() => new Promise<string>(() => {}));
  const { sent, answered, results } = server.load.open({ arrivals: evenly(1000), next: request });
  const asked = server.load.ask(request());
  server.load.close();
  await Promise.all([sent, answered]);
  expect(await asked).toMatchObject({ status: 0, fault: "the generator was closed", answer: undefined });
  expect(results.every(({ status }) => status === 0)).toBe(true);
});

test("a mix has the given shares, and begins with the first kind", () => {
  const next = mix({ create: 6, read: 3, search: 1 });
  const kinds = Array.from({ length: 10_000 }, next);
  const shares = Object.entries(Object.groupBy(kinds, (kind) => kind)).map(([kind, all]) => [
    kind,
    Math.round((all?.length ?? 0) / 100),
  ]);
  expect(kinds[0]).toBe("create");
  expect(Object.fromEntries(shares)).toEqual({ create: 60, read: 30, search: 10 });
});
