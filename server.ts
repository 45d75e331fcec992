import { STATUS_CODES } from "node:http";
import { type Cache, lru } from "./cache.ts";
import { docs } from "./contract/docs.ts";
import { type FieldError, parsePessoa } from "./contract/pessoa.ts";
import { type Db, type DbOptions, loggable, openDb, Unavailable } from "./db.ts";
import * as log from "./process/log.ts";
import { main } from "./process/main.ts";
import { type Metrics, metrics } from "./process/metrics.ts";
import type { Settings } from "./process/settings.ts";
import { type Running, type Service, type StartOptions, start as startProcess } from "./process/start.ts";

type Handle = (request: Request) => Promise<Response>;
type Handler = (request: Request, target: Target) => Response | Promise<Response>;
/** `id` follows /pessoas/, `query` follows the question mark. */
type Target = { path: string; id: string; query: string };

const maxBodyBytes = 64 * 1024;
// Bounds the memory of bodies without nginx in front, as in nginx.conf.
const largeBodyBytes = 10_000;
const maxLargeBodies = 1024;
// Bun reads the rest of a rejected body, so the client sees the answer.
const maxLeftoverBytes = 16 * 2 ** 20;
// Search answers, in characters: the longest sent whole, and the sum of longer ones not yet read.
const maxWholeAnswer = 64 * 1024;
const maxUnread = 32 * 2 ** 20;
const json = "application/json";
const plain = { headers: { "Content-Type": "text/plain", "Cache-Control": "no-store" } };
const immutable = "public, max-age=31536000, immutable";
const logEveryMs = 10_000; // under load there are thousands of 503s a second

/** Bounds that tests make smaller. */
export type Limits = StartOptions & Partial<Pick<DbOptions, "maxInMemory" | "batchSize" | "queueLimit">>;

/** Rejects like process/start.ts. */
export function start(settings: Settings, { gaveUp, drainMs, ...limits }: Limits = {}): Promise<Running> {
  const open = (url: string): Service => {
    const cache = lru(settings.CACHE_BYTES);
    const db = openDb({
      url,
      readUrl: settings.DATABASE_URL_READ,
      timeoutMs: settings.DB_TIMEOUT_MS,
      windowMs: settings.BATCH_WINDOW_MS,
      searches: settings.SEARCHES,
      cached: cache.peek,
      ...limits,
    });
    const { memoryStats: memory, stats: batches, replicaStats: replica } = db;
    const handle = api(db, cache, metrics({ cache: cache.stats, memory, batches, replica }));
    return { handle, failed, migrate: db.migrate, close: db.close };
  };
  return startProcess(settings, open, { gaveUp, drainMs });
}

export function api(db: Db, cache: Cache, { observe: count, render, contentType }: Metrics): Handle {
  const observe = log.logs("debug") ? countAndLog : count;
  const routes: Record<string, Record<string, Handler>> = {
    "/pessoas": { GET: searchPessoas, POST: createPessoa },
    "/pessoas/:id": { GET: getPessoa },
    "/contagem-pessoas": { GET: countPessoas },
    "/healthz": { GET: () => new Response("ok\n", plain) },
    "/readyz": { GET: ready },
    "/metrics": {
      GET: async () => new Response(await render(), { headers: { "Content-Type": contentType } }),
    },
    ...docs,
  };

  let unread = 0;

  return async function handle(request) {
    const started = performance.now();
    const target = split(request.url);
    const route = routes[target.path];
    const response = route ? await answer(request, target, route) : notFound(target);
    const name = route ? `${request.method} ${target.path}` : "other";
    observe(name, response.status, (performance.now() - started) / 1000);
    return response;
  };

  function countAndLog(route: string, status: number, seconds: number) {
    count(route, status, seconds);
    log.debug(route, { status, ms: Math.round(seconds * 1e5) / 100 });
  }

  async function answer(request: Request, target: Target, route: Record<string, Handler>): Promise<Response> {
    const handler = route[request.method === "HEAD" ? "GET" : request.method];
    if (!handler) return methodNotAllowed(Object.keys(route));
    try {
      return await handler(request, target);
    } catch (error) {
      if (error instanceof Unavailable) return unavailable(error);
      if (request.signal.aborted)
        return problem(400, "the client disconnected before its request was complete");
      return failed(error as Error);
    }
  }

  async function createPessoa(request: Request): Promise<Response> {
    const body = await readBody(request);
    if (!body) return tooLarge(request);
    if (!isJson(request.headers.get("content-type"))) {
      return problem(415, "expected Content-Type: application/json");
    }
    const coding = request.headers.get("content-encoding");
    if (coding !== null && !isIdentity(coding)) {
      return problem(415, `expected Content-Encoding: identity, got ${coding}`, {
        headers: { "Accept-Encoding": "identity" },
      });
    }
    // Validating a large body blocks the event loop for milliseconds.
    if (body.length >= largeBodyBytes && db.isFullOfHuge())
      throw new Unavailable("too many huge persons are waiting");
    const pessoa = parsePessoa(body);
    if ("status" in pessoa) return problem(pessoa.status, pessoa.detail, { errors: pessoa.errors });
    // The id depends on the apelido alone: a cached id is a taken apelido.
    const outcome = cache.peek(pessoa.id) !== undefined ? "taken" : await db.insertPessoa(pessoa);
    const location = `/pessoas/${pessoa.id}`;
    if (outcome !== "created") return notCreated(outcome, location);
    const text = JSON.stringify(pessoa);
    cache.set(pessoa.id, text);
    return new Response(text, { status: 201, headers: { "Content-Type": json, Location: location } });
  }

  async function getPessoa(_: Request, { id: given }: Target): Promise<Response> {
    const id = given.toLowerCase();
    if (!uuid.test(id)) return problem(404, "there is no such person: expected a UUID after /pessoas/");
    let text = cache.get(id);
    if (text === undefined) {
      text = await db.findPessoa(id);
      if (text === undefined) return problem(404, `there is no person with the id ${id}`);
      cache.set(id, text);
    }
    return new Response(text, { headers: { "Content-Type": json, "Cache-Control": immutable } });
  }

  async function searchPessoas(_: Request, { query }: Target): Promise<Response> {
    const term = searchTerm(query);
    if (!term) {
      const message = "expected one search term, not empty, percent-encoded UTF-8";
      return problem(400, `t: ${message}`, { errors: [{ field: "t", message }] });
    }
    const found = await db.searchPessoas(term);
    return new Response(list(found), { headers: { "Content-Type": json } });
  }

  /** A long list is written at the client's pace: 50 persons can be 3 MB. */
  function list(found: string[]): string | AsyncIterable<string> {
    const length = found.reduce((sum, text) => sum + text.length, 0);
    if (length <= maxWholeAnswer) return `[${found.join()}]`;
    if (unread + length > maxUnread) throw new Unavailable("too many large answers are being read");
    return (async function* () {
      unread += length;
      try {
        for (const [i, text] of found.entries()) yield (i === 0 ? "[" : ",") + text;
        yield "]";
      } finally {
        unread -= length;
      }
    })();
  }

  async function countPessoas(): Promise<Response> {
    return new Response(String(await db.countPessoas()), plain);
  }

  async function ready(): Promise<Response> {
    await db.ping();
    return new Response("ready\n", plain);
  }
}

const slash = "/".charCodeAt(0);
const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;

/**
 * Not `new URL`, which is slow, and fails on the bare path of a request with an invalid Host. One trailing slash is
 * ignored.
 */
function split(url: string): Target {
  const start = url.startsWith("/") ? 0 : url.indexOf("/", url.indexOf("://") + 3);
  const mark = url.indexOf("?", start);
  const end = mark === -1 ? url.length : mark;
  const path = url.slice(start, url.charCodeAt(end - 1) === slash && end - start > 2 ? end - 1 : end);
  const query = mark === -1 ? "" : url.slice(mark + 1);
  const id = path.startsWith("/pessoas/") ? path.slice("/pessoas/".length) : "";
  return id === "" || id.includes("/") ? { path, id: "", query } : { path: "/pessoas/:id", id, query };
}

/** The parameter `t`. Undefined when it is missing, repeated or not decodable. */
function searchTerm(query: string): string | undefined {
  try {
    const [term, ...more] = query
      .split("&")
      .map((pair) => pair.split(/=(.*)/s))
      .filter(([name]) => name === "t" || name === "%74");
    if (!term || more.length > 0) return undefined;
    return decodeURIComponent((term[1] ?? "").replaceAll("+", " "));
  } catch {
    return undefined;
  }
}

let largeBodies = 0;

/** Undefined when the body is too large. */
async function readBody(request: Request): Promise<Uint8Array | undefined> {
  const length = request.headers.get("content-length");
  if (length !== null && Number(length) < largeBodyBytes) return await request.bytes();
  if (length !== null && Number(length) > maxBodyBytes) return undefined;
  if (largeBodies >= maxLargeBodies) throw new Unavailable("too many large bodies are being received");
  largeBodies++;
  try {
    return length === null ? await readChunks(request) : await request.bytes();
  } finally {
    largeBodies--;
  }
}

async function readChunks({ body }: Request): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of body ?? []) {
    bytes += chunk.length;
    if (bytes > maxBodyBytes) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

/** application/json, text/json, anything +json, or no type. */
function isJson(contentType: string | null): boolean {
  return (
    contentType === null ||
    contentType === json ||
    /^\s*((application|text)\/json|[^\s;/]+\/[^\s;/]+\+json)\s*(;|$)/i.test(contentType)
  );
}

const isIdentity = (coding: string) => coding.split(",").every((each) => /^\s*(identity)?\s*$/i.test(each));

type ProblemOptions = {
  errors?: FieldError[] | undefined;
  location?: string;
  headers?: Record<string, string>;
};

/** RFC 9457. */
function problem(
  status: number,
  detail: string,
  { errors, location, headers }: ProblemOptions = {},
): Response {
  return new Response(
    JSON.stringify({ type: "about:blank", title: STATUS_CODES[status], status, detail, errors, location }),
    { status, headers: { "Content-Type": "application/problem+json", ...headers } },
  );
}

function tooLarge({ headers }: Request): Response {
  const ends = Number(headers.get("content-length") ?? Number.POSITIVE_INFINITY) <= maxLeftoverBytes;
  return problem(413, `expected a body of at most ${maxBodyBytes} bytes`, {
    headers: ends ? {} : { Connection: "close" },
  });
}

function notFound({ path }: Target): Response {
  return problem(404, `there is nothing at ${path}`);
}

function methodNotAllowed(methods: string[]): Response {
  const allow = methods.flatMap((each) => (each === "GET" ? ["GET", "HEAD"] : [each])).join(", ");
  return problem(405, `this path allows only ${allow}`, { headers: { Allow: allow } });
}

function notCreated(outcome: "taken" | "refused", location: string): Response {
  if (outcome === "refused") return problem(422, "the database cannot hold this person");
  const message = "is already taken";
  return problem(422, `apelido: ${message}`, { errors: [{ field: "apelido", message }], location });
}

let loggedAt = -logEveryMs;
function unavailable({ message, cause }: Error): Response {
  if (performance.now() - loggedAt >= logEveryMs) {
    loggedAt = performance.now();
    log.warn(`503: ${message}`, loggable(cause));
  }
  return problem(503, `${message}; send the same request again`, { headers: { "Retry-After": "1" } });
}

/** The log gets all details of a bug, the client none. */
function failed(error: Error): Response {
  log.error("500: a bug in the server", log.trace(error));
  return problem(500, "a bug in the server; it is logged");
}

if (import.meta.main) await main(process, start);
