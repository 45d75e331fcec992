import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { chmodSync, existsSync, readFileSync, rmSync } from "node:fs";
import { STATUS_CODES } from "node:http";
import { type Cache, lru } from "./cache.ts";
import { docs } from "./contract/docs.ts";
import { type FieldError, parsePessoa } from "./contract/pessoa.ts";
import { type Embedded, EmbeddedError, startEmbedded } from "./database/embedded.ts";
import { loggable } from "./database/session.ts";
import { type Db, type DbOptions, openDb, Unavailable } from "./db.ts";
import * as log from "./process/log.ts";
import { metrics } from "./process/metrics.ts";
import { unpatched } from "./process/patched.ts";
import { listenerOf } from "./process/port.ts";
import { help, readSettings, type Settings } from "./process/settings.ts";

type Handle = (request: Request) => Promise<Response>;
type Handler = (request: Request, target: Target) => Response | Promise<Response>;
/** A request target, split: `id` is what stands after /pessoas/, `query` what stands after the question mark. */
type Target = { path: string; id: string; query: string };

const maxBodyBytes = 64 * 1024;
// What clients can make an instance hold that has no nginx before it: 1024 × 64 KB, as nginx.conf has it.
const largeBodyBytes = 10_000;
const maxLargeBodies = 1024;
// Bun reads what is left of a refused body, so that its sender gets to see why: but not for ever.
const maxLeftoverBytes = 16 * 2 ** 20;
// In characters, of searches' answers: one that clients may leave unread, and all of them together.
const maxSmallAnswer = 64 * 1024;
const maxBeingRead = 32 * 2 ** 20;
const json = "application/json";
const plain = { headers: { "Content-Type": "text/plain", "Cache-Control": "no-store" } };
// With a database that is away the server is up after this long: alive, not ready, and ready by itself later.
const databaseWaitMs = 2000;
const upstreamKeepAliveMs = 1000; // keepalive_timeout of the upstream in nginx.conf
const forEver = "public, max-age=31536000, immutable";
// Ctrl-C reaches the server and `bun run start`, which passes it on to the server.
const passedOnMs = 500;
const tellAgainMs = 10_000; // under load there are thousands of 503s a second

/** The whole API: what each request gets. */
export function api(db: Db, cache: Cache): Handle {
  const { observe: count, render, contentType } = metrics(db, cache);
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

  let beingRead = 0;

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
      if (request.signal.aborted) return problem(400, "the client went away before its request was complete");
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
    // To validate one takes milliseconds, in which nobody else is served.
    if (body.length >= largeBodyBytes && db.fullOfLong())
      throw new Unavailable("too many huge persons are waiting");
    const pessoa = parsePessoa(body);
    if ("status" in pessoa) return problem(pessoa.status, pessoa.detail, { errors: pessoa.errors });
    // The id follows from the apelido and nobody is ever removed: who is in the cache has this apelido.
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
    return new Response(text, { headers: { "Content-Type": json, "Cache-Control": forEver } });
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

  /** What is too large for the buffers on its way waits here until the client reads: 50 persons can be 3 MB. */
  function list(found: string[]): string | AsyncIterable<string> {
    const length = found.reduce((sum, text) => sum + text.length, 0);
    if (length <= maxSmallAnswer) return `[${found.join()}]`;
    if (beingRead + length > maxBeingRead) throw new Unavailable("too many large answers are being read");
    return (async function* () {
      beingRead += length;
      try {
        for (const [i, text] of found.entries()) yield (i === 0 ? "[" : ",") + text;
        yield "]";
      } finally {
        beingRead -= length;
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
 * By hand and not with URL: it is on the way of every request, and `url` is a bare path when Host is unusable. One slash
 * at the end of a path is ignored; "//" is another path than "/".
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

/** The one parameter `t`; undefined when it is missing, given twice or not decodable. */
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

/** Undefined when it is too large. What is beyond the limit is not read. */
async function readBody(request: Request): Promise<Uint8Array | undefined> {
  const length = request.headers.get("content-length");
  if (length !== null && Number(length) < largeBodyBytes) return await request.bytes();
  if (length !== null && Number(length) > maxBodyBytes) return undefined;
  if (largeBodies >= maxLargeBodies) throw new Unavailable("too many large bodies are on their way");
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

/** application/json, text/json or anything +json, with or without parameters; also when there is none. */
function isJson(contentType: string | null): boolean {
  return (
    contentType === null ||
    contentType === json ||
    /^\s*((application|text)\/json|[^\s;/]+\/[^\s;/]+\+json)\s*(;|$)/i.test(contentType)
  );
}

/** Whether a Content-Encoding changes nothing. */
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
  return problem(405, `only ${allow} are possible here`, { headers: { Allow: allow } });
}

/** `location` is the path of the person who has the apelido. */
function notCreated(outcome: "taken" | "refused", location: string): Response {
  if (outcome === "refused") return problem(422, "the database cannot hold this person");
  const message = "is already taken";
  return problem(422, `apelido: ${message}`, { errors: [{ field: "apelido", message }], location });
}

let toldAt = -tellAgainMs;
function unavailable({ message, cause }: Error): Response {
  if (performance.now() - toldAt >= tellAgainMs) {
    toldAt = performance.now();
    log.warn(`503: ${message}`, loggable(cause));
  }
  return problem(503, `${message}; send the same request again`, { headers: { "Retry-After": "1" } });
}

/** The answer to a mistake of ours: everything to the log, nothing of it to the client. */
function failed(error: Error): Response {
  log.error("500: a mistake of the server", log.trace(error));
  return problem(500, "the server made a mistake; it is logged");
}

export type Running = {
  url: string;
  /** Stops accepting, answers what is in flight, then lets go of the database. */
  stop(): Promise<void>;
  /** Stops at once. */
  kill(): void;
};

/**
 * Serves until it is stopped. Rejects with a message for people when a setting or the surroundings prevent it, and with
 * the reason of `gaveUp` when that aborts first. Of a start that rejects nothing is left behind.
 */
export async function start(
  settings: Settings,
  gaveUp: AbortSignal = new AbortController().signal,
  more: Pick<DbOptions, "held"> = {},
): Promise<Running> {
  log.setLevel(settings.LOG_LEVEL);
  for (const name of unpatched()) {
    log.warn(`${name} is not patched, and may end the server when a connection is lost: run "bun install"`);
  }
  await using opened = new AsyncDisposableStack();
  let embedded: Embedded | undefined;
  if (settings.DATABASE_URL === undefined) {
    embedded = await startEmbedded(settings.DATA_DIR, log.info, gaveUp);
    opened.defer(embedded.stop);
  }
  const cache = lru(settings.CACHE_BYTES);
  const db = openDb({
    cached: cache.peek,
    ...more,
    url: settings.DATABASE_URL ?? (embedded as Embedded).url,
    readUrl: settings.DATABASE_URL_READ,
    timeoutMs: settings.DB_TIMEOUT_MS,
    batchSize: settings.BATCH_SIZE,
    gatherMs: settings.GATHER_MS,
    searches: settings.SEARCHES,
    queueLimit: settings.QUEUE_LIMIT,
  });
  const ending = new AbortController();
  const migrated = migrate(db, AbortSignal.any([gaveUp, ending.signal]));
  migrated.catch(() => {}); // once nobody waits for it any more
  opened.defer(async () => {
    ending.abort();
    await db.close();
    await atMost(settings.DB_TIMEOUT_MS, migrated).catch(() => {});
  });
  await atMost(databaseWaitMs, Promise.race([migrated, aborted(gaveUp)]));
  const handle = api(db, cache);
  gaveUp.throwIfAborted();
  const server = await listen(settings, handle);
  opened.defer(() => atMost(settings.DRAIN_MS, server.stop(true)));
  gaveUp.throwIfAborted();
  // nginx is another user; who may reach the socket is up to its folder.
  if (settings.SOCKET !== undefined) chmodSync(settings.SOCKET, 0o666);
  const closing = opened.move();
  return {
    url: settings.SOCKET ?? server.url.href,
    async stop() {
      ending.abort();
      if (settings.SOCKET !== undefined) await leave(server, handle, settings.SOCKET);
      // A client that never ends its request must not keep the server from ending.
      await atMost(settings.DRAIN_MS, server.stop());
      await closing.disposeAsync();
    },
    kill() {
      void server.stop(true);
      embedded?.kill();
    },
  };
}

/** Resolves or rejects as `done` does; after `ms` it resolves all the same. */
async function atMost(ms: number, done: Promise<unknown>): Promise<void> {
  const { promise: late, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  try {
    await Promise.race([done, late]);
  } finally {
    clearTimeout(timer);
  }
}

function aborted(signal: AbortSignal): Promise<unknown> {
  return signal.aborted ? Promise.resolve() : once(signal, "abort");
}

/**
 * Applies the schema as soon as the database can be reached, until `gaveUp`. Rejects when the database refuses
 * to be used at all; once the server is up, it goes on trying even then.
 */
async function migrate(db: Db, gaveUp: AbortSignal): Promise<void> {
  const patienceEnds = performance.now() + databaseWaitMs;
  for (let told = ""; !gaveUp.aborted; await Bun.sleep(100)) {
    try {
      return await db.migrate();
    } catch (error) {
      if (gaveUp.aborted) return;
      if (!(error instanceof Unavailable) && performance.now() < patienceEnds) throw error;
      const { message, cause = error } = error as Error;
      const { code, reason } = loggable(cause);
      const why = `${message}${reason === undefined ? "" : ` (${reason})`}`;
      if (why !== told) log.warn(`${why}: trying again`, { code });
      told = why;
    }
  }
}

async function listen({ HOST, PORT, SOCKET }: Settings, fetch: Handle) {
  const common = { fetch, error: failed, maxRequestBodySize: Number.MAX_SAFE_INTEGER }; // readBody has the limit
  if (SOCKET === undefined) {
    // Longer than nginx keeps an idle connection: the upstream must not be the one that closes it.
    try {
      return Bun.serve({ ...common, hostname: HOST, port: PORT, idleTimeout: 75 });
    } catch (error) {
      throw await cannotListen(error as NodeJS.ErrnoException, HOST, PORT);
    }
  }
  try {
    await removeStaleSocket(SOCKET);
    return Bun.serve({ ...common, unix: SOCKET });
  } catch (error) {
    if (error instanceof RangeError) throw error;
    throw new RangeError(`SOCKET: ${(error as Error).message}; set a path in a folder that is writable`);
  }
}

/** Bun's code does not tell the two settings apart: a port of 0 is free at any address that can be listened on. */
async function cannotListen(error: NodeJS.ErrnoException, host: string, port: number): Promise<Error> {
  const advice = "set HOST to 127.0.0.1, or to 0.0.0.0 for all addresses";
  try {
    await Bun.serve({ hostname: host, port: 0, fetch: () => new Response() }).stop(true);
  } catch {
    const resolved = await lookup(host).catch(() => undefined);
    if (resolved) return new RangeError(`HOST: "${host}" is not an address of this machine; ${advice}`);
    return new RangeError(`HOST: "${host}" cannot be resolved; ${advice}`);
  }
  if (error.code === "EACCES") {
    return new RangeError(`PORT: no permission to listen on ${port}; set a PORT from 1024 to 65535`);
  }
  if (error.code !== "EADDRINUSE") return error;
  const holder = listenerOf(port);
  const by = holder ? ` by ${holder.name} (pid ${holder.pid})` : "";
  return new RangeError(`PORT: port ${port} is in use${by}; stop that, or set another PORT`);
}

/**
 * Lets nginx be the one that closes every connection: it may write a request in the moment in which this end
 * closes, and a POST that was sent is not sent again. Without the socket's file it connects to the other instance;
 * a connection that is used ends with its answer; one that is not nginx drops by itself.
 */
async function leave(server: Bun.Server<undefined>, handle: Handle, socket: string): Promise<void> {
  rmSync(socket, { force: true });
  server.reload({
    async fetch(request) {
      const response = await handle(request);
      response.headers.set("Connection", "close");
      return response;
    },
    error: failed,
  });
  await Bun.sleep(upstreamKeepAliveMs * 1.5);
}

/** A killed server leaves its socket behind, and then nobody can listen there. */
async function removeStaleSocket(path: string): Promise<void> {
  const alive = await Bun.connect({ unix: path, socket: { data() {} } }).catch(() => undefined);
  if (alive) {
    alive.end();
    throw new RangeError(`SOCKET: another server is listening on ${path}`);
  }
  rmSync(path, { force: true });
}

type Host = Pick<NodeJS.Process, "argv" | "env"> & {
  on(signal: NodeJS.Signals, listener: () => void): unknown;
  on(event: "unhandledRejection" | "uncaughtException", listener: (thrown: unknown) => void): unknown;
  exit(code: number): void;
};

/**
 * Serves until a signal. The first lets it finish what it has begun, the start included, with status 0. A second ends it
 * at once, with status 1.
 */
export async function main(host: Host): Promise<void> {
  const [unknown] = host.argv.slice(2);
  if (unknown === "--help" || unknown === "-h") return console.log(help());
  const gaveUp = new AbortController();
  let running: Running | undefined;
  const tell = (thrown: unknown) => log.error("a mistake of the server", log.trace(thrown));
  let first: { signal: NodeJS.Signals; at: number } | undefined;
  async function stop(signal: NodeJS.Signals) {
    if (first) {
      const again = signal === first.signal && performance.now() - first.at < passedOnMs;
      if (again && host.env.npm_lifecycle_event !== undefined) return;
      log.info(`stopping at once: ${signal}, the second signal`);
      running?.kill();
      return host.exit(1);
    }
    first = { signal, at: performance.now() };
    log.info(`stopping: ${signal}`);
    gaveUp.abort(); // a start rejects then, and ends below
    if (!running) return;
    try {
      await running.stop();
    } catch (error) {
      tell(error);
      return host.exit(1);
    }
    log.info("stopped");
    host.exit(0);
  }
  // A tick later: `bun --watch` calls the listeners of SIGTERM before a reload, and runs nothing after them.
  for (const signal of endingSignals()) host.on(signal, () => setImmediate(stop, signal));
  // Bun does the same with them, but prints them as they are.
  host.on("unhandledRejection", tell);
  host.on("uncaughtException", (thrown) => {
    tell(thrown);
    host.exit(1);
  });
  try {
    if (unknown) throw new RangeError(`${unknown}: settings are environment variables; --help lists them`);
    running = await start(readSettings(host.env), gaveUp.signal);
    log.info(`listening on ${running.url}`);
  } catch (error) {
    if (error === gaveUp.signal.reason) {
      log.info("stopped");
      return host.exit(0);
    }
    const forPeople =
      error instanceof RangeError || error instanceof EmbeddedError || "code" in (error as object);
    log.error((error as Error).message, forPeople ? {} : log.trace(error)); // no client has said anything yet
    host.exit(1);
  }
}

/** Without SIGHUP where it is ignored already, as nohup has it. */
function endingSignals(): NodeJS.Signals[] {
  const status = "/proc/self/status";
  const [, ignored = "0"] = existsSync(status)
    ? (/^SigIgn:\s+(\w+)$/m.exec(readFileSync(status, "utf8")) ?? [])
    : [];
  return BigInt(`0x${ignored}`) & 1n
    ? ["SIGTERM", "SIGINT", "SIGQUIT"]
    : ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"];
}

if (import.meta.main) await main(process);
