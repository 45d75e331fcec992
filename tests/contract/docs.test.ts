import { afterAll, expect, test } from "bun:test";
import { serve } from "../helpers/support.ts";

const registry = await serve();
afterAll(registry.stop);

test("/ redirects to /docs", async () => {
  const response = await registry.request("/", { redirect: "manual" });
  expect([response.status, response.headers.get("location")]).toEqual([307, "/docs"]);
});

test("/docs loads everything from this server, with the right Content-Type", async () => {
  const response = await registry.get("/docs");
  expect(response.headers.get("content-type")).toBe("text/html; charset=utf-8");
  expect(response.headers.get("content-security-policy")).toStartWith(
    "default-src 'none'; script-src 'self';",
  );
  const loaded = [...(await response.text()).matchAll(/(?:src|href)="([^"]+)"/g)].map(([, path]) => path);
  expect(loaded.filter((path) => !path?.startsWith("/"))).toEqual(["data:,"]);
  const types = new Map<string, string | null>();
  for (const path of loaded.filter((each) => each?.startsWith("/")) as string[]) {
    const asset = await registry.get(path);
    expect([path, asset.status, (await asset.text()).length > 100]).toEqual([path, 200, true]);
    types.set(path, asset.headers.get("content-type"));
  }
  expect(Object.fromEntries(types)).toEqual({
    "/docs/swagger-ui.css": "text/css; charset=utf-8",
    "/docs/page.css": "text/css; charset=utf-8",
    "/openapi.json": "application/json",
    "/docs/swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "/docs/start.js": "text/javascript; charset=utf-8",
  });
});

const script = "/docs/swagger-ui-bundle.js";
const asked = (path: string, accepted: string) =>
  fetch(new URL(path, registry.url), { decompress: false, headers: { "Accept-Encoding": accepted } });

test.each(["gzip", "gzip, deflate, br, zstd", "br;q=1.0, GZIP ; q=0.5"])(
  "script and style are compressed for Accept-Encoding %p",
  async (accepted) => {
    for (const path of [script, "/docs/swagger-ui.css"]) {
      const plain = await (await asked(path, "identity")).bytes();
      for (const time of ["first", "second"]) {
        const response = await asked(path, accepted);
        const { headers } = response;
        expect([path, time, headers.get("content-encoding")]).toEqual([path, time, "gzip"]);
        expect(headers.get("vary")).toBe("Accept-Encoding");
        const bytes = new Uint8Array(await response.arrayBuffer());
        expect(bytes.length).toBe(Number(headers.get("content-length")));
        expect(bytes.length).toBeLessThan(plain.length / 3);
        expect(Buffer.from(Bun.gunzipSync(bytes)).equals(plain)).toBe(true);
      }
    }
  },
);

test.each(["identity", "", "br", "gzip;q=0", "gzip; q=0.000, br"])(
  "script and style are not compressed for Accept-Encoding %p",
  async (accepted) => {
    const { headers } = await asked(script, accepted);
    expect([headers.get("content-encoding"), headers.get("vary")]).toEqual([null, "Accept-Encoding"]);
    expect(Number(headers.get("content-length"))).toBeGreaterThan(1_000_000);
  },
);
