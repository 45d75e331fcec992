import assert from "node:assert/strict";
import { client, newPessoa } from "../support.ts";

export type Attack = {
  name: string;
  /** Ends by itself, or when `signal` is aborted; resolves with a sentence on what became of it. */
  run(url: string, signal: AbortSignal): Promise<string>;
};

export const attacks: Attack[] = [
  { name: "idle", run: idle },
  { name: "slow-headers", run: slowHeaders },
  { name: "half-bodies", run: halfBodies },
  { name: "endless-chunks", run: endlessChunks },
  { name: "pipelining", run: pipelining },
  { name: "unread-answers", run: unreadAnswers },
  { name: "json-bombs", run: jsonBombs },
  { name: "huge-persons", run: hugePersons },
  { name: "searches", run: searches },
];

const lastsMs = 12_000; // longer than nginx waits for anything

type Client = ReturnType<typeof client>;
type Peer = {
  /** What came back, up to a megabyte of it. */
  received: string;
  closed: boolean;
  write(bytes: string): void;
  end(): void;
};

/** A connection that says what it is told to say. With `reads` false nothing is taken from the socket. */
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

/** `n` connections, opened 100 at a time. A connection that is refused is not among them. */
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

/** Does it once a second until it has taken long enough. */
async function every(signal: AbortSignal, act: () => void, ms = lastsMs) {
  for (
    const ends = performance.now() + ms;
    performance.now() < ends && !signal.aborted;
    await Bun.sleep(1000)
  )
    act();
}

const statuses = (peers: Peer[]) => tally(peers.map(({ received }) => received.slice(9, 12) || "none"));

function tally(all: string[]): string {
  const groups = Object.entries(Object.groupBy(all, (each) => each));
  return groups.map(([what, { length = 0 } = []]) => `${length} × ${what}`).join(", ") || "nothing";
}

async function idle(url: string, signal: AbortSignal) {
  const peers = await crowd(url, 10_000);
  const open = peers.filter(({ closed }) => !closed).length;
  await settled(peers, signal, 2 * lastsMs);
  const cut = peers.filter(({ closed }) => closed).length;
  if (!signal.aborted) assert.equal(cut, 10_000, "cut, as all who say nothing");
  return `${open} connections at once that say nothing, ${cut} cut`;
}

/** Resolves when all of them are closed, or after a while. */
async function settled(peers: Peer[], signal: AbortSignal, ms = 10_000) {
  const ends = performance.now() + ms;
  while (peers.some(({ closed }) => !closed) && performance.now() < ends && !signal.aborted)
    await Bun.sleep(50);
}

async function slowHeaders(url: string, signal: AbortSignal) {
  const peers = await crowd(url, 3000);
  for (const peer of peers) peer.write("GET /healthz HTTP/1.1\r\nHost: x\r\nX: ");
  await every(signal, () => {
    for (const peer of peers) if (!peer.closed) peer.write("x");
  });
  const cut = peers.filter(({ closed }) => closed).length;
  for (const peer of peers) peer.end();
  if (!signal.aborted) assert.equal(cut, peers.length, "cut after 10 s");
  return `${peers.length} connections with a byte of the header every second, ${cut} cut`;
}

async function halfBodies(url: string, signal: AbortSignal) {
  const peers = await crowd(url, 3000);
  const head =
    "POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 64000\r\n\r\n";
  const part = " ".repeat(60_000);
  for (const peer of peers) peer.write(head + part);
  await every(signal, () => {});
  await settled(peers, signal);
  const answers = statuses(peers);
  const cut = peers.filter(({ closed }) => closed).length;
  for (const peer of peers) peer.end();
  return `${peers.length} connections with 60 of 64 KB: ${answers}; ${cut} cut`;
}

async function endlessChunks(url: string, signal: AbortSignal) {
  const peers = await crowd(url, 500);
  const head = "POST /pessoas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
  const chunk = `2000\r\n${" ".repeat(0x2000)}\r\n`;
  for (const peer of peers) peer.write(head);
  await every(signal, () => {
    for (const peer of peers) if (!peer.closed) peer.write(chunk);
  });
  await settled(peers, signal);
  const answers = statuses(peers);
  for (const peer of peers) peer.end();
  if (!signal.aborted) assert.match(answers, /^\d+ × 413$/);
  return `${peers.length} connections with 8 KB a second and no end: ${answers}`;
}

async function pipelining(url: string, signal: AbortSignal) {
  const peers = await crowd(url, 50);
  const requests = 200;
  const burst = () =>
    Array.from({ length: requests }, (_, i) => {
      if (i % 2) return "GET /pessoas/nobody HTTP/1.1\r\nHost: x\r\n\r\n";
      const body = JSON.stringify(newPessoa());
      return `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    }).join("");
  for (const peer of peers) peer.write(burst());
  const answered = ({ received }: Peer) =>
    [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status as string);
  const ends = performance.now() + lastsMs;
  while (
    peers.some((peer) => answered(peer).length < requests) &&
    performance.now() < ends &&
    !signal.aborted
  ) {
    await Bun.sleep(200);
  }
  const all = peers.map(answered);
  for (const peer of peers) peer.end();
  for (const each of all) {
    assert.ok(
      each.every((status, i) => (i % 2 ? status === "404" : /201|503/.test(status))),
      "answers are in order",
    );
  }
  return `50 connections with ${requests} requests at once: ${tally(all.flat())}`;
}

/** Answers of 3 MB, several on one connection, that nobody reads. Needs persons who hold "unread". */
async function unreadAnswers(url: string, signal: AbortSignal) {
  const lanes = Array.from({ length: 60 }, () => hugePerson("unread"));
  const { post } = client(url);
  for (const person of lanes) {
    signal.throwIfAborted();
    const { status } = await post(person);
    assert.ok(status === 201 || status === 503);
  }
  const peers = await crowd(url, 300, false);
  for (const peer of peers) peer.write("GET /pessoas?t=unread HTTP/1.1\r\nHost: x\r\n\r\n".repeat(8));
  await every(signal, () => {});
  for (const peer of peers) peer.end();
  return `${peers.length} connections with 8 searches each, of 3 MB, and none read`;
}

/** As many requests as its lanes get answered. */
async function flood(
  url: string,
  signal: AbortSignal,
  lanes: number,
  next: (n: number, to: Client) => Promise<Response>,
) {
  const answers: string[] = [];
  const ends = performance.now() + lastsMs;
  let n = 0;
  const to = client(url);
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      while (performance.now() < ends && !signal.aborted) {
        const response = await next(n++, to).catch((error: Error) => error);
        if (response instanceof Error) answers.push(response.name);
        else {
          await response.text();
          const told = response.status !== 503 || response.headers.has("retry-after");
          answers.push(told ? String(response.status) : "503 without Retry-After");
        }
      }
    }),
  );
  return answers;
}

const wrap = (member: string) => JSON.stringify(newPessoa()).replace(/\}$/, `,${member}}`);
const bombs: [what: string, status: number, body: () => string][] = [
  ["deep arrays", 400, () => `${"[".repeat(32_000)}${"]".repeat(32_000)}`],
  ["deep in an unknown member", 201, () => wrap(`"x":${"[".repeat(1000)}${"]".repeat(1000)}`)],
  ["deep objects", 422, () => `${'{"a":'.repeat(9_000)}1${"}".repeat(9_000)}`],
  ["a wide object", 201, () => wrap(Array.from({ length: 6000 }, (_, i) => `"${i}":0`).join())],
  [
    "a number of 60,000 digits",
    400,
    () => JSON.stringify({ ...newPessoa(), nome: 0 }).replace('"nome":0', `"nome":${"9".repeat(60_000)}`),
  ],
  ["a number beyond all numbers", 201, () => wrap('"x":1e99999')],
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

async function jsonBombs(url: string, signal: AbortSignal) {
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

async function hugePersons(url: string, signal: AbortSignal) {
  const answers = await flood(url, signal, 200, (_, { post }) => post(hugePerson("huge")));
  assert.match(tally(answers), /^\d+ × (201|503)(, \d+ × (201|503))?$/);
  return `200 at a time: ${tally(answers)}`;
}

const terms = [
  ...["a", "e", "z", "é", "%", "_", "\\", "0", " ", "🦜"],
  ...["%%%%%%%%", "qx", "xq zw", "aaa", "ana silva", "a".repeat(400), "a".repeat(4096), "%".repeat(2000)],
  ...[
    "silva silva silva silva",
    "zzzzzzzzzzzz",
    "a b c d e f g h i j",
    ". . .",
    "((((((((((a+)+)+)+)+)+",
    "-1",
  ],
];

async function searches(url: string, signal: AbortSignal) {
  const answers = await flood(url, signal, 64, (n, { get }) =>
    get(`/pessoas?t=${encodeURIComponent(terms[n % terms.length] as string)}`),
  );
  assert.match(tally(answers), /^\d+ × (200|503|414)(, \d+ × (200|503|414))*$/);
  return `64 at a time: ${tally(answers)}`;
}
