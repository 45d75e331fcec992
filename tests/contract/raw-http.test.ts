import { afterAll, expect, test } from "bun:test";
import { shapes } from "../helpers/malformed-requests.ts";
import { newPessoa, raw } from "../helpers/requests.ts";
import { serve } from "../helpers/support.ts";

const registry = await serve();
afterAll(registry.stop);

test.each(shapes)(
  "%s is rejected with one answer, and the connection is closed",
  async (_, status, bytes) => {
    const answer = await raw(registry.url, Buffer.from(bytes, "latin1")); // resolves when the server closes
    const statuses = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, code]) => code);
    expect(statuses).toEqual([expect.stringMatching(status)]);
  },
);

// Bun closes the connection when a request arrives before the previous one is answered.
test("pipelined requests are answered in order until Bun closes the connection", async () => {
  const requests = Array.from({ length: 50 }, (_, i) => {
    const body = JSON.stringify(newPessoa());
    return i % 2
      ? "GET /pessoas/nobody HTTP/1.1\r\nHost: x\r\n\r\n"
      : `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  });
  const last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  const answer = await raw(registry.url, requests.join("") + last);
  const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code);
  const inOrder = [...requests.map((_, i) => (i % 2 ? "404" : "201")), "200"];
  expect(statuses).toEqual(inOrder.slice(0, statuses.length));
  expect((await registry.get("/healthz")).status).toBe(200);
});
