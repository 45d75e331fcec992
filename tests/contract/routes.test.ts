import { afterAll, expect, test } from "bun:test";
import { problem } from "../helpers/problem.ts";
import { type Found, newPessoa, raw, rawRequest } from "../helpers/requests.ts";
import { query, serve } from "../helpers/support.ts";

const registry = await serve();
afterAll(registry.stop);

test.each([
  "/pessoa",
  "/docs//",
  "/docs/../server.ts",
  "/docs/swagger-ui-es-bundle.js",
  "/pessoas//",
  "/pessoas/a/b",
  "/pessoas/a/b/",
  "/pessoas/5ce4668c-4710-4cfb-ae5f-38988d6d49cb//",
  "/contagem-pessoas//",
  "/metrics/x",
  "/Pessoas?t=a",
])("an unknown path gets 404: %s", async (path) => {
  await problem(await registry.get(path), 404);
  await problem(await registry.request(path, { method: "DELETE" }), 404);
});

test.each([
  ["PUT", "/pessoas", "GET, HEAD, POST"],
  ["DELETE", "/pessoas", "GET, HEAD, POST"],
  ["PATCH", "/pessoas", "GET, HEAD, POST"],
  ["OPTIONS", "/pessoas", "GET, HEAD, POST"],
  ["POST", "/pessoas/5ce4668c-4710-4cfb-ae5f-38988d6d49cb", "GET, HEAD"],
  ["DELETE", "/pessoas/not-a-uuid", "GET, HEAD"],
  ["POST", "/contagem-pessoas", "GET, HEAD"],
  ["POST", "/healthz", "GET, HEAD"],
  ["PUT", "/readyz", "GET, HEAD"],
])("another method gets 405 with Allow: %s %s", async (method, path, allow) => {
  const response = await registry.request(path, { method });
  expect(response.headers.get("allow")).toBe(allow);
  await problem(response, 405);
});

test.each(["//", "///", "//pessoas?t=a", "//healthz/"])(
  "a target that begins with two slashes gets 404: %s",
  async (target) => {
    expect(await rawRequest(registry.url, "GET", target)).toStartWith("HTTP/1.1 404 ");
  },
);

test("one slash at the end of a path is ignored, also in the routes of the metrics", async () => {
  await using fresh = await serve();
  const created = await fresh.request("/pessoas/", { method: "POST", body: JSON.stringify(newPessoa()) });
  expect(created.status).toBe(201);
  const { id } = (await created.json()) as Found;
  for (const path of [
    ...[`/pessoas/${id}`, "/pessoas?t=Pessoa", "/contagem-pessoas", "/healthz", "/readyz", "/metrics"],
    ...["/docs", "/docs/start.js", "/openapi.json"],
  ]) {
    const [name = "", query] = path.split("?");
    expect([path, (await fresh.get(`${name}/${query ? `?${query}` : ""}`)).status]).toEqual([path, 200]);
  }
  await problem(await fresh.get("/pessoas/"), 400);
  await problem(await fresh.request("/contagem-pessoas/", { method: "POST" }), 405);
  const text = await (await fresh.get("/metrics")).text();
  const routes = [...text.matchAll(/duration_seconds_count\{route="([^"]+)"/g)].map(([, route]) => route);
  expect(new Set(routes)).toEqual(
    new Set([
      ...["POST /pessoas", "GET /pessoas/:id", "GET /pessoas", "GET /contagem-pessoas", "GET /healthz"],
      ...["GET /readyz", "GET /metrics", "GET /docs", "GET /docs/start.js", "GET /openapi.json"],
      "POST /contagem-pessoas",
    ]),
  );
});

test("HEAD gets the status and the type of GET, without a body", async () => {
  const { id } = await registry.create();
  const paths = "/pessoas?t=a /contagem-pessoas /pessoas /pessoas/x /healthz".split(" ");
  for (const path of [`/pessoas/${id}`, ...paths]) {
    const [get, head] = [await registry.get(path), await registry.request(path, { method: "HEAD" })];
    expect([head.status, await head.text()]).toEqual([get.status, ""]);
    expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
  }
});

test("/healthz and /readyz answer 200", async () => {
  expect((await registry.get("/healthz")).status).toBe(200);
  expect((await registry.get("/readyz")).status).toBe(200);
});

test("/metrics counts every request, also 600 between two scrapes", async () => {
  await using fresh = await serve();
  const asked = 600;
  const scrape = async () => {
    const of = 'pessoas_http_request_duration_seconds_count{route="GET /healthz",status="200"} ';
    const lines = (await (await fresh.get("/metrics")).text()).split("\n");
    return lines.find((line) => line.startsWith(of))?.slice(of.length);
  };
  for (let i = 0; i < asked; i++) await fresh.get("/healthz");
  expect(await scrape()).toBe(String(asked));
  await fresh.get("/healthz");
  expect(await scrape()).toBe(String(asked + 1));
});

test("/metrics counts requests, cache and batches in Prometheus' text format", async () => {
  await using fresh = await serve();
  const { id } = await fresh.create();
  await fresh.get(`/pessoas/${id}`);
  await fresh.get(`/pessoas/${crypto.randomUUID()}`);
  await fresh.get("/nothing/here");
  const response = await fresh.get("/metrics");
  expect(response.headers.get("content-type")).toStartWith("text/plain");
  const lines = (await response.text()).split("\n");
  for (const line of [
    'pessoas_http_request_duration_seconds_count{route="POST /pessoas",status="201"} 1',
    'pessoas_http_request_duration_seconds_count{route="GET /pessoas/:id",status="200"} 1',
    'pessoas_http_request_duration_seconds_count{route="GET /pessoas/:id",status="404"} 1',
    'pessoas_http_request_duration_seconds_count{route="other",status="404"} 1',
    "pessoas_cache_hits_total 1",
    "pessoas_cache_misses_total 1",
    "pessoas_cache_entries 1",
    'pessoas_batch_statements_total{kind="insert"} 1',
    'pessoas_batch_items_total{kind="find"} 1',
    'pessoas_batch_waiting{kind="insert"} 0',
    'pessoas_batch_connections{kind="search"} 2',
    'pessoas_batch_connections_busy{kind="search"} 0',
  ]) {
    expect(lines).toContain(line);
  }
  for (const name of [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "nodejs_eventloop_lag_max_seconds",
  ]) {
    expect([name, lines.some((line) => line.startsWith(`${name} `))]).toEqual([name, true]);
  }
});

test("an invalid Host header is ignored", async () => {
  const answer = await raw(registry.url, "GET /healthz?x HTTP/1.0\r\nHost: a b/c?d\r\n\r\n");
  expect(answer).toStartWith("HTTP/1.1 200 ");
});

test("a bug is answered 500 without details, which are logged", async () => {
  const broken = await serve();
  await query(broken.databaseUrl, "alter table pessoas rename column nome to lost");
  const { error } = console;
  const logged: unknown[] = [];
  console.error = (...what) => logged.push(...what);
  try {
    const { detail } = await problem(await broken.get(`/pessoas/${crypto.randomUUID()}`), 500);
    expect(detail).not.toContain("nome");
    expect(Bun.inspect(logged[0])).toContain("nome");
  } finally {
    console.error = error;
    await broken.stop();
  }
});
