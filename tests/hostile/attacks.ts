import assert from "node:assert/strict";
import { post, shapes } from "../helpers/malformed-requests.ts";
import { client, newPessoa, raw } from "../helpers/requests.ts";
import { inLoops } from "../helpers/support.ts";
import type { Target, Way } from "./target.ts";

/** The attacked registry. */
type Victim = Pick<Target, "url" | "way">;

type Attack = {
  name: string;
  /** Ends by itself or when `signal` is aborted, then perhaps with an error; resolves with a sentence on the result. */
  run(victim: Victim, signal: AbortSignal): Promise<string>;
};

export const attacks: Attack[] = [
  { name: "idle", run: idle },
  { name: "slow-headers", run: slowHeaders },
  { name: "half-bodies", run: halfBodies },
  { name: "endless-chunks", run: endlessChunks },
  { name: "pipelining", run: pipelining },
  { name: "unread-answers", run: unreadAnswers },
  { name: "unread-pages", run: unreadPages },
  { name: "no-requests", run: noRequests },
  { name: "wrong-lengths", run: wrongLengths },
  { name: "json-bombs", run: jsonBombs },
  { name: "huge-persons", run: hugePersons },
  { name: "searches", run: searches },
];

const lastsMs = 12_000;
/**
 * The time until a silent connection, or one with an incomplete header or body, is closed. nginx.conf has 10 s, but
 * nginx accepts a silent connection some seconds late (deferred). Bun has 10 s for the first header of a connection,
 * and for the rest the idleTimeout of 75 s (process/listen.ts), even if bytes arrive. It checks every 4 s.
 */
const cutMs: Record<Way, Record<"silence" | "header" | "body", number>> = {
  nginx: { silence: 24_000, header: 12_000, body: 14_000 },
  direct: { silence: 16_000, header: 16_000, body: 80_000 },
};

type Client = ReturnType<typeof client>;
type Peer = {
  /** The received bytes, up to a megabyte. */
  received: string;
  closed: boolean;
  write(bytes: string): void;
  end(): void;
};

/** A raw connection. With `reads` false it never reads from the socket. */
async function connect(url: string, reads = true): Promise<Peer> {
  const { hostname, port } = new URL(url);
  const peer: Peer = { received: "", closed: false, write() {}, end() {} };
  const rest: Buffer[] = [];
  const socket = await Bun.connect({
    hostname,
    port: Number(port),
    socket: {
      data(_, data) {
        if (peer.received.length < 2 ** 20) peer.received += data.toString("latin1");
      },
      drain(socket) {
        for (let next = rest.shift(); next; next = rest.shift()) {
          const written = socket.write(next);
          if (written < next.length) return void rest.unshift(next.subarray(Math.max(0, written)));
        }
      },
      close() {
        peer.closed = true;
      },
      error() {},
    },
  });
  if (!reads) socket.pause();
  peer.write = (text) => {
    const bytes = Buffer.from(text, "latin1");
    const written = rest.length > 0 ? 0 : socket.write(bytes);
    if (written < bytes.length) rest.push(bytes.subarray(Math.max(0, written)));
  };
  peer.end = () => socket.terminate();
  return peer;
}

/** Opens `n` connections, 100 at a time, without those that are refused. */
async function crowd(url: string, n: number, reads = true): Promise<Peer[]> {
  const peers: Peer[] = [];
  for (let opened = 0; opened < n; opened += 100) {
    const some = await Promise.allSettled(
      Array.from({ length: Math.min(100, n - opened) }, () => connect(url, reads)),
    );
    peers.push(...some.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])));
  }
  return peers;
}

/** Whether the attack is over. */
function end(signal: AbortSignal, ms = lastsMs): () => boolean {
  const ends = performance.now() + ms;
  return () => performance.now() >= ends || signal.aborted;
}

/** Repeats `act` once a second for the length of the attack. */
async function every(signal: AbortSignal, act: () => void, ms = lastsMs) {
  for (const isOver = end(signal, ms); !isOver(); await Bun.sleep(1000)) act();
}

/** Ends all connections. Returns the number of those that the server had closed. */
function leave(peers: Peer[]): number {
  const cut = peers.filter(({ closed }) => closed).length;
  for (const peer of peers) peer.end();
  return cut;
}

const statuses = (peers: Peer[]) => tally(peers.map(({ received }) => received.slice(9, 12) || "none"));

function tally(all: string[]): string {
  const groups = Object.entries(Object.groupBy(all, (each) => each));
  return groups.map(([what, { length = 0 } = []]) => `${length} × ${what}`).join(", ") || "nothing";
}

async function idle({ url, way }: Victim, signal: AbortSignal) {
  const peers = await crowd(url, 10_000);
  const open = peers.filter(({ closed }) => !closed).length;
  await settled(peers, signal, cutMs[way].silence);
  const cut = leave(peers);
  assert.equal(cut, 10_000, "silent connections that were cut");
  return `${open} silent connections at once, ${cut} cut`;
}

/** Resolves when all are closed, or after a time limit. */
async function settled(peers: Peer[], signal: AbortSignal, ms = 10_000) {
  const isOver = end(signal, ms);
  while (peers.some(({ closed }) => !closed) && !isOver()) await Bun.sleep(50);
}

async function slowHeaders({ url, way }: Victim, signal: AbortSignal) {
  const peers = await crowd(url, 3000);
  for (const peer of peers) peer.write("GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
  await every(
    signal,
    () => {
      for (const peer of peers) if (!peer.closed) peer.write("x");
    },
    cutMs[way].header,
  );
  const cut = leave(peers);
  assert.equal(cut, peers.length, "cut in time");
  return `${peers.length} connections with a byte of the header every second, ${cut} cut`;
}

async function halfBodies({ url, way }: Victim, signal: AbortSignal) {
  const peers = await crowd(url, 3000);
  const half = post("Content-Length: 64000", " ".repeat(60_000));
  for (const peer of peers) peer.write(half);
  await settled(peers, signal, cutMs[way].body);
  const answers = statuses(peers);
  const cut = leave(peers);
  assert.equal(cut, peers.length, "cut in time");
  assert.match(answers, /^\d+ × (503|408|none)(, \d+ × (503|408|none))*$/);
  return `${peers.length} connections with 60 of 64 KB: ${answers}; ${cut} cut`;
}

async function endlessChunks({ url }: Victim, signal: AbortSignal) {
  const peers = await crowd(url, 500);
  const chunk = `2000\r\n${" ".repeat(0x2000)}\r\n`;
  for (const peer of peers) peer.write(post("Transfer-Encoding: chunked", ""));
  await every(signal, () => {
    for (const peer of peers) if (!peer.closed) peer.write(chunk);
  });
  await settled(peers, signal);
  const answers = statuses(peers);
  const cut = leave(peers);
  assert.match(answers, /^\d+ × 413$/);
  assert.equal(cut, peers.length, "cut");
  return `${peers.length} connections with 8 KB a second, without end: ${answers}; ${cut} cut`;
}

async function pipelining({ url }: Victim, signal: AbortSignal) {
  const peers = await crowd(url, 50);
  const requests = 200;
  const burst = () =>
    Array.from({ length: requests }, (_, i) => {
      if (i % 2) return "GET /pessoas/nobody HTTP/1.1\r\nHost: x\r\n\r\n";
      const body = JSON.stringify(newPessoa());
      return post(`Content-Length: ${body.length}`, body);
    }).join("");
  for (const peer of peers) peer.write(burst());
  const answered = ({ received }: Peer) =>
    [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status as string);
  const isOver = end(signal);
  while (peers.some((peer) => !peer.closed && answered(peer).length < requests) && !isOver()) {
    await Bun.sleep(200);
  }
  const all = peers.map(answered);
  const cut = leave(peers); // Bun closes; see tests/contract/raw-http.test.ts
  for (const each of all) {
    assert.ok(
      each.every((status, i) => (i % 2 ? status === "404" : /201|503/.test(status))),
      "answers are in order",
    );
  }
  return `50 connections with ${requests} requests at once: ${tally(all.flat())}; ${cut} cut`;
}

/** Unread answers of 3 MB, several per connection. Needs persons with "unread". */
async function unreadAnswers({ url }: Victim, signal: AbortSignal) {
  const lanes = Array.from({ length: 60 }, () => hugePerson("unread"));
  const { post } = client(url);
  for (const person of lanes) {
    signal.throwIfAborted();
    const { status } = await post(person);
    assert.ok(status === 201 || status === 503);
  }
  const search = "GET /pessoas?t=unread HTTP/1.1\r\nHost: x\r\n\r\n";
  const opened = await unread(url, signal, 300, search.repeat(8));
  return `${opened} connections with 8 searches each, answers of 3 MB unread`;
}

/** The largest file, requested by many clients at once before it has been compressed. */
async function unreadPages({ url }: Victim, signal: AbortSignal) {
  const request = "GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\nAccept-Encoding: gzip\r\n\r\n";
  const opened = await unread(url, signal, 700, request);
  return `${opened} connections that request the script of /docs, answers unread`;
}

/** Sends requests over `n` connections and reads no answer. Resolves with the number of connections. */
async function unread(url: string, signal: AbortSignal, n: number, requests: string) {
  const peers = await crowd(url, n, false);
  for (const peer of peers) peer.write(requests);
  await every(signal, () => {});
  leave(peers);
  return peers.length;
}

/** Requests in a closed loop. */
async function flood(
  url: string,
  signal: AbortSignal,
  lanes: number,
  next: (n: number, to: Client) => Promise<Response>,
) {
  const answers: string[] = [];
  const to = client(url);
  await inLoops(lanes, end(signal), async (n) => {
    const response = await next(n, to).catch((error: Error) => error);
    if (response instanceof Error) return void answers.push(response.name);
    await response.text();
    const told = response.status !== 503 || response.headers.has("retry-after");
    answers.push(told ? String(response.status) : "503 without Retry-After");
  });
  return answers;
}

const wrap = (member: string) => JSON.stringify(newPessoa()).replace(/\}$/, `,${member}}`);
const bombs: [what: string, status: number, body: () => string | Uint8Array][] = [
  ["invalid UTF-8", 400, () => Buffer.from(wrap('"x":"\xff\xc0\x80"'), "latin1")],
  ["UTF-8 that ends too early", 400, () => Buffer.from(wrap('"x":"\xf0\x9f\xa6"'), "latin1")],
  ["deep arrays", 400, () => `${"[".repeat(32_000)}${"]".repeat(32_000)}`],
  ["deep in an unknown member", 201, () => wrap(`"x":${"[".repeat(1000)}${"]".repeat(1000)}`)],
  ["deep objects", 422, () => `${'{"a":'.repeat(9_000)}1${"}".repeat(9_000)}`],
  ["a wide object", 201, () => wrap(Array.from({ length: 6000 }, (_, i) => `"${i}":0`).join())],
  [
    "a number of 60,000 digits",
    400,
    () => JSON.stringify({ ...newPessoa(), nome: 0 }).replace('"nome":0', `"nome":${"9".repeat(60_000)}`),
  ],
  ["a number that is too large for a double", 201, () => wrap('"x":1e99999')],
  ["one member 9,000 times", 201, () => wrap(new Array(6000).fill('"x":1').join())],
  [
    "__proto__ and constructor",
    201,
    () => wrap('"__proto__":{"apelido":1},"constructor":{"prototype":{"nome":1}}'),
  ],
  ["30,000 wrong elements", 400, () => JSON.stringify({ ...newPessoa(), stack: new Array(30_000).fill(1) })],
  [
    "10,000 elements that are too long",
    422,
    () => JSON.stringify({ ...newPessoa(), stack: new Array(1700).fill("x".repeat(33)) }),
  ],
  [
    "escapes alone",
    422,
    () =>
      JSON.stringify({ ...newPessoa(), nome: "" }).replace(
        '"nome":""',
        `"nome":"${"\\u0041".repeat(10_000)}"`,
      ),
  ],
];

/** A name, the allowed statuses of the answers, and the bytes. */
type Malformed = [what: string, statuses: RegExp, bytes: () => string | Uint8Array];

/** Sends `kinds`, 16 at a time. A client that is still sending may get a reset instead of the answer. */
async function sendMalformed(url: string, signal: AbortSignal, kinds: Malformed[], until?: RegExp) {
  const answers: string[] = [];
  await inLoops(16, end(signal), async (n) => {
    const [what, expected, bytes] = kinds[n % kinds.length] as Malformed;
    const answer = await raw(url, bytes(), until).catch((error: Error) => error);
    if (answer instanceof Error) return void answers.push("reset");
    const got = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => status).join();
    assert.match(got, expected, what);
    answers.push(got || "cut");
  });
  return tally(answers);
}

/** Invalid and ambiguous requests. Each gets one answer. */
async function noRequests({ url }: Victim, signal: AbortSignal) {
  const kinds = shapes.map(
    ([what, status, bytes]): Malformed => [
      what,
      new RegExp(`^(${status.source})$`),
      () => Buffer.from(bytes, "latin1"),
    ],
  );
  return `${shapes.length} shapes, 16 at a time: ${await sendMalformed(url, signal, kinds)}`;
}

const wrong: Malformed[] = [
  ["a body of 5 MB", /^413$/, () => post("Content-Length: 5000000", "x".repeat(5_000_000))],
  ["a length of 2^53 - 1", /^413$/, () => post(`Content-Length: ${2 ** 53 - 1}`, "")],
  ["chunks of 5 MB", /^413$/, () => post("Transfer-Encoding: chunked", chunks(5_000_000))],
  // The bytes after the body are an invalid request, so Bun closes the connection before or after the first answer.
  ["a length that is too short", /^(400(,400)?)?$/, () => post("Content-Length: 10", wrap('"x":1'))],
];

function chunks(bytes: number): string {
  return `2000\r\n${"x".repeat(0x2000)}\r\n`.repeat(bytes / 0x2000);
}

/** Bodies that are too large, and wrong lengths. */
async function wrongLengths({ url }: Victim, signal: AbortSignal) {
  return `16 at a time: ${await sendMalformed(url, signal, wrong, /^HTTP\/1\.1 413/m)}`;
}

async function jsonBombs({ url }: Victim, signal: AbortSignal) {
  const { post } = client(url);
  for (const [what, status, body] of bombs) assert.equal((await post(body())).status, status, what);
  const answers = await flood(url, signal, 16, (n, { post }) =>
    post((bombs[n % bombs.length] as (typeof bombs)[0])[2]()),
  );
  assert.match(tally(answers), /^((?!× (500|502|Error|without)).)*$/);
  return `16 at a time: ${tally(answers)}`;
}

/** Almost 64 KiB of different words. */
function hugePerson(nome: string) {
  return {
    ...newPessoa(),
    nome,
    stack: Array.from({ length: 1750 }, () => crypto.randomUUID().slice(0, 32)),
  };
}

async function hugePersons({ url }: Victim, signal: AbortSignal) {
  const answers = await flood(url, signal, 200, (_, { post }) => post(hugePerson("huge")));
  assert.match(tally(answers), /^\d+ × (201|503)(, \d+ × (201|503))?$/);
  return `200 at a time: ${tally(answers)}`;
}

const terms = [
  // Terms of 50 rows, and terms that hundreds of thousands of a million persons contain.
  ...["a", "e", "z", "é", "%", "_", "\\", "0", " ", "🦜", "qx", "an"],
  ...["backend", "ckend", "silva", "ana silva", "silva silva silva silva", "backend zzzz", "aaa", "xq zw"],
  ...["%%%%%%%%", "a".repeat(400), "a".repeat(4096), "%".repeat(2000), "zzzzzzzzzzzz", "a b c d e f g h i j"],
  ...[". . .", "((((((((((a+)+)+)+)+)+", "-1"],
];
const queries = [
  ...terms.map((term) => [`t=${encodeURIComponent(term)}`, 200] as const),
  ...["t=%FF", "t=%C3%28", "t=%ED%A0%80", "t=%", "t=", "t=a&t=b", "x"].map((query) => [query, 400] as const),
];

async function searches({ url }: Victim, signal: AbortSignal) {
  const { get } = client(url);
  const wrong = queries.filter(([, status]) => status === 400);
  for (const [query, status] of wrong) assert.equal((await get(`/pessoas?${query}`)).status, status, query);
  const answers = await flood(url, signal, 64, (n, { get }) =>
    get(`/pessoas?${(queries[n % queries.length] as (typeof queries)[0])[0]}`),
  );
  assert.match(tally(answers), /^\d+ × (200|400|503)(, \d+ × (200|400|503))*$/);
  return `64 at a time: ${tally(answers)}`;
}
