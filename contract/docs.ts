import { resolve } from "node:path";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import style from "swagger-ui-dist/swagger-ui.css" with { type: "file" };
import script from "swagger-ui-dist/swagger-ui-bundle.js" with { type: "file" };
import { openApi } from "./openapi.ts";

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>pessoas</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/docs/swagger-ui.css">
<link rel="stylesheet" href="/docs/page.css">
<div id="docs"></div>
<noscript>This page needs JavaScript. The same as JSON: <a href="/openapi.json">/openapi.json</a></noscript>
<script src="/docs/swagger-ui-bundle.js"></script>
<script src="/docs/start.js"></script>
`;

// Hides empty parts, so that answers fit a phone.
const pageStyle = `.swagger-ui :is(.scheme-container, .response-col_links) { display: none; }
html.dark-mode .swagger-ui :is(.header-col, .examples-select__section-label) { color: #e4e6e6; }
@media (max-width: 640px) {
  .swagger-ui table.responses-table, .swagger-ui table.parameters { table-layout: fixed; }
  .swagger-ui table.responses-table .response-col_status { width: 3.5em; }
  .swagger-ui .opblock-section-header { flex-wrap: wrap; gap: 8px; }
  .swagger-ui .model-box, .swagger-ui .opblock-description-wrapper { overflow-x: auto; }
  .swagger-ui .info .title, .swagger-ui .renderedMarkdown { overflow-wrap: anywhere; }
}
`;

// validatorUrl null: else Swagger UI asks a third party.
const start = `const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", follow);
follow();
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  validatorUrl: null,
  deepLinking: true,
  displayRequestDuration: true,
  tryItOutEnabled: true,
});
`;

// Nothing from other sites. The data: images are icons of the stylesheet.
const policy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const answer = (type: string, headers: Record<string, string> = {}) => ({
  headers: { "Content-Type": type, "X-Content-Type-Options": "nosniff", ...headers },
});
const javascript = "text/javascript; charset=utf-8";

/** The first request compresses the file, outside the event loop: 1.9 MB become 0.5 MB. */
function file(path: string, type: string) {
  const content = Bun.file(resolve(import.meta.dir, path)); // relative in a bundle
  let compressed: Promise<Blob> | undefined;
  // A Blob: Bun copies bytes for every slow reader.
  const compress = async () => new Blob([new Uint8Array(await promisify(gzip)(await content.bytes()))]);
  const compressOnce = () => {
    compressed ??= compress().catch((error) => {
      compressed = undefined;
      throw error;
    });
    return compressed;
  };
  return async ({ headers }: Request): Promise<Response> => {
    const init = answer(type, { "Cache-Control": "public, max-age=86400", Vary: "Accept-Encoding" });
    if (!takesGzip(headers.get("accept-encoding") ?? "")) return new Response(content, init);
    return new Response(await compressOnce(), { headers: { ...init.headers, "Content-Encoding": "gzip" } });
  };
}

const takesGzip = (accepted: string) =>
  accepted.split(",").some((each) => /^\s*gzip\s*(;\s*q=(?!0(\.0*)?\s*$)|$)/i.test(each));

/** The page at /docs and its files. / redirects there. */
export const docs: Record<string, { GET: (request: Request) => Response | Promise<Response> }> = {
  "/": { GET: () => new Response(null, { status: 307, headers: { Location: "/docs" } }) },
  "/openapi.json": { GET: () => new Response(openApi(), answer("application/json")) },
  "/docs": {
    GET: () => new Response(page, answer("text/html; charset=utf-8", { "Content-Security-Policy": policy })),
  },
  "/docs/page.css": { GET: () => new Response(pageStyle, answer("text/css; charset=utf-8")) },
  "/docs/start.js": { GET: () => new Response(start, answer(javascript)) },
  "/docs/swagger-ui-bundle.js": { GET: file(script, javascript) },
  "/docs/swagger-ui.css": { GET: file(style, "text/css; charset=utf-8") },
};
