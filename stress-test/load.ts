// A process of its own: it sends the loads of cost.ts and tells what came back, over IPC.
import { readPositionals } from "../tools/arguments.ts";
import { expectedFor, readPessoa } from "./data/contract.ts";
import { generate, type Random, randomFrom } from "./data/payloads.ts";
import { type Latency, summarise } from "./measure/statistics.ts";

export const loads = ["official", "saturation", "reads"] as const;
export type Load = (typeof loads)[number];

/** How one slice went. */
export type Sent = {
  /** From the first request to the last answer. */
  seconds: number;
  /** CPU-seconds of this process meanwhile. */
  cpuS: number;
  /** Milliseconds, by kind of request. */
  requests: Record<string, Latency>;
  /** 201s. */
  created: number;
  /** What was wrong with answers, and how often. */
  faults: Record<string, number>;
  /** Milliseconds by which the open loop began later than due; it is in the latencies. */
  late: { p50: number; p99: number } | null;
};

/** What is sent to this process: prepare a slice, then go. */
export type Order = { prepare: Load; seconds: number } | "go";
/** What it answers: the slice is ready; the last answer is there (its CPU can be read now); what was seen. */
export type Report = "ready" | "ended" | Sent;

export type LoadOptions = {
  port: number;
  seed: number;
  /** Payloads to have at hand for all slices of the open loop together. */
  rows: number;
  /** Users a second that create, in the open loop. */
  rate: number;
};

const connections = 64;
const shapes = 10_000; // different persons in the closed loop, apart from their apelido
const newest = 1000; // persons that are read again and again: they fit into the cache of an instance
const answerTimeoutMs = 10_000;
const pauseMs = { min: 1, max: 30 };
// The contest's peak: 600 creates, 100 searches and 40 searches without t a second.
const searchesPerCreate = 100 / 600;
const withoutTermPerCreate = 40 / 600;

type Kind = "create" | "read" | "search" | "search without t";

type Task = {
  kind: Kind;
  request: Buffer;
  accept: readonly number[];
  /** What the body of an accepted answer holds. */
  holds?: string;
  /** Milliseconds until who got 201 is read. */
  pauseMs?: number;
};

type User = { dueMs: number; task: Task };

export type Answer = { status: number; location: string; body: Buffer; bytes: number };

/** The first answer in `received`; undefined while it is not complete. Throws when it is none of HTTP/1.1. */
export function readAnswer(received: Buffer): Answer | undefined {
  const headEnd = received.indexOf("\r\n\r\n");
  if (headEnd === -1) return undefined;
  const head = received.toString("latin1", 0, headEnd);
  const status = /^HTTP\/1\.1 (\d{3})/.exec(head)?.[1];
  if (status === undefined) throw new Error("this is no answer in HTTP/1.1");
  const location = /\r\nlocation: *([^\r]+)/i.exec(head)?.[1] ?? "";
  const start = headEnd + 4;
  const length = /\r\ncontent-length: *(\d+)/i.exec(head)?.[1];
  const rest =
    length !== undefined
      ? { body: received.subarray(start, start + Number(length)), end: start + Number(length) }
      : /\r\ntransfer-encoding: *chunked/i.test(head)
        ? readChunks(received, start)
        : undefined;
  if (rest === undefined) throw new Error("an answer without a length");
  if (rest.end > received.length) return undefined;
  return { status: Number(status), location, body: rest.body, bytes: rest.end };
}

/** `end` is beyond what was received while the last chunk is missing. */
function readChunks(received: Buffer, start: number): { body: Buffer; end: number } {
  const chunks: Buffer[] = [];
  for (let at = start; ; ) {
    const lineEnd = received.indexOf("\r\n", at);
    if (lineEnd === -1) return { body: received, end: Number.POSITIVE_INFINITY };
    const size = Number.parseInt(received.toString("latin1", at, lineEnd), 16);
    if (Number.isNaN(size)) throw new Error("a chunk without a size");
    const end = lineEnd + 2 + size + 2;
    if (size === 0) return { body: Buffer.concat(chunks), end };
    chunks.push(received.subarray(lineEnd + 2, end - 2));
    at = end;
  }
}

/** Milliseconds at which users arrive within `seconds`, as a Poisson process has them. */
export function arrivals(random: Random, perSecond: number, seconds: number): number[] {
  const times: number[] = [];
  const steps = 2 ** 30;
  for (let at = 0; ; ) {
    at -= (Math.log(random.int(1, steps) / steps) / perSecond) * 1000;
    if (at >= seconds * 1000) return times;
    times.push(at);
  }
}

/** Payloads of valid persons without end: shaped as the contest's, and each with an apelido that nobody else has. */
export function persons(seed: number, shapes: number): () => string {
  const valid = generate(seed, shapes, 0).rows.filter(
    ({ payload }) => typeof readPessoa(payload) === "object",
  );
  const templates = valid.map(({ payload }) => {
    const [, before = "", apelido = "", after = ""] = /^(\{"apelido": ")([^"]*)(".*)$/.exec(payload) ?? [];
    return { before, kept: apelido.slice(6), after };
  });
  let made = 0;
  return () => {
    const { before, kept, after } = templates[made % templates.length] as (typeof templates)[number];
    return `${before}0${(made++).toString(36).padStart(5, "0")}${kept}${after}`; // the contest's own have no digit
  };
}

/** What the process holds from slice to slice: a payload is sent once, and who was created can be read. */
function world({ port, seed, rows: count, rate }: LoadOptions) {
  const { rows, terms } = generate(seed, count, 5000);
  const person = persons((seed + 1) % 2 ** 32, shapes);
  const random = randomFrom(seed);
  const locations: string[] = [];
  let [sent, asked] = [0, 0];

  // Byte for byte what Gatling 3.9.5 sends.
  const agent = "user-agent: Agente do Caos - 2023\r\n";
  const rest = `accept: */*\r\nhost: 127.0.0.1:${port}\r\n`;
  const get = (path: string) => Buffer.from(`GET ${path} HTTP/1.1\r\n${agent}${rest}\r\n`);
  const post = (body: string) =>
    Buffer.from(
      `POST /pessoas HTTP/1.1\r\n${agent}content-type: application/json\r\n${rest}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );

  const create = (payload: string, accept: readonly number[]): Task => ({
    kind: "create",
    request: post(payload),
    accept,
  });
  const read = (location: string): Task => ({
    kind: "read",
    request: get(location),
    accept: [200],
    holds: location.slice(location.lastIndexOf("/") + 1),
  });
  const search = (): Task => ({
    kind: "search",
    request: get(`/pessoas?t=${encodeURIComponent(terms[asked++ % terms.length] as string)}`),
    accept: [200],
    holds: "[",
  });
  const withoutTerm = { kind: "search without t", request: get("/pessoas"), accept: [400] } satisfies Task;

  return {
    locations,
    read,
    person: () => create(person(), [201]),
    /** Users of the open loop by when they are due, and how many of them get 201 whichever comes first. */
    users(seconds: number) {
      const dueMs = arrivals(random, rate, seconds);
      if (sent + dueMs.length > rows.length) throw new Error("there are not enough payloads");
      const first = expectedFor(rows, sent)[201];
      const creates = dueMs.map((dueMs) => {
        const { payload, accept } = rows[sent++] as (typeof rows)[number];
        return { dueMs, task: { ...create(payload, accept), pauseMs: random.int(pauseMs.min, pauseMs.max) } };
      });
      const searches = arrivals(random, rate * searchesPerCreate, seconds).map((dueMs) => ({
        dueMs,
        task: search(),
      }));
      const withoutTerms = arrivals(random, rate * withoutTermPerCreate, seconds).map((dueMs) => ({
        dueMs,
        task: withoutTerm,
      }));
      const users: User[] = [...creates, ...searches, ...withoutTerms];
      return {
        users: users.sort((a, b) => a.dueMs - b.dueMs),
        expected: expectedFor(rows, sent)[201] - first,
      };
    },
    /** Reads of the newest persons, in turn. */
    reads(): Task[] {
      const tasks = locations.slice(-newest).map(read);
      if (tasks.length === 0) throw new Error("nobody was created who could be read");
      return tasks;
    },
  };
}

/** What is seen during one slice. */
function tally() {
  const seen = new Map<Kind, { ms: number[]; failed: number }>();
  const faults: Record<string, number> = {};
  return {
    faults,
    created: 0,
    record({ kind }: Task, ms: number, fault: string) {
      const all = seen.get(kind) ?? { ms: [], failed: 0 };
      seen.set(kind, all);
      all.ms.push(ms);
      if (fault === "") return;
      all.failed++;
      const text = `${kind}: ${fault}`;
      faults[text] = (faults[text] ?? 0) + 1;
    },
    requests: (): Record<string, Latency> =>
      Object.fromEntries(
        [...seen]
          .sort(([a], [b]) => (a < b ? -1 : 1))
          .map(([kind, { ms, failed }]) => [kind, summarise(ms, failed)]),
      ),
  };
}

type Next = { task: Task; afterMs: number };
/** What a connection sends after the answer to `task`; undefined: it is closed. */
type Follow = (task: Task, answer: Answer, fault: string) => Next | undefined;

type Connection = {
  /** What is sent and not answered; what will be sent. */
  task: Task | undefined;
  next: Task | undefined;
  dueMs: number;
  received: Buffer | undefined;
  unsent: Buffer | undefined;
  done(): void;
};
type Socket = Bun.Socket<Connection>;

function faultOf(task: Task, { status, location, body }: Answer): string {
  if (!task.accept.includes(status)) return `expected ${task.accept.join(" or ")}, got ${status}`;
  if (status === 201 && location === "") return "201 without a Location";
  return task.holds !== undefined && !body.includes(task.holds)
    ? "the body does not hold what it has to"
    : "";
}

/** Connections whose requests are recorded in `seen`. */
function network(port: number, seen: ReturnType<typeof tally>, follow: Follow) {
  const open = new Set<Socket>();

  function send(socket: Socket, task: Task, dueMs: number) {
    socket.data.task = task;
    socket.data.dueMs = dueMs;
    write(socket, task.request);
  }
  function write(socket: Socket, bytes: Buffer) {
    const written = socket.write(bytes);
    socket.data.unsent = written < bytes.length ? bytes.subarray(Math.max(0, written)) : undefined;
  }
  function fail(socket: Socket, reason: string) {
    open.delete(socket);
    const { task, next, dueMs, done } = socket.data;
    const missing = task ?? next;
    if (missing) seen.record(missing, performance.now() - dueMs, reason);
    socket.data.task = undefined;
    done();
  }
  const handlers: Bun.SocketHandler<Connection> = {
    data(socket, chunk) {
      const { data } = socket;
      const received = data.received ? Buffer.concat([data.received, chunk]) : chunk;
      const { task } = data;
      let answer: Answer | undefined;
      try {
        answer = readAnswer(received);
      } catch (error) {
        fail(socket, (error as Error).message);
        socket.terminate();
        return;
      }
      if (!answer) {
        data.received = Buffer.from(received); // the chunk's memory is Bun's
        return;
      }
      if (!task) return;
      data.received = undefined;
      data.task = undefined;
      const fault = answer.bytes === received.length ? faultOf(task, answer) : "more than one answer";
      seen.record(task, performance.now() - data.dueMs, fault);
      if (answer.status === 201) seen.created++;
      const next = follow(task, answer, fault);
      if (!next) {
        open.delete(socket);
        socket.end();
        data.done();
      } else if (next.afterMs === 0) {
        send(socket, next.task, performance.now());
      } else {
        data.next = next.task;
        setTimeout(() => {
          data.next = undefined;
          if (open.has(socket)) send(socket, next.task, performance.now());
        }, next.afterMs);
      }
    },
    drain(socket) {
      if (socket.data.unsent) write(socket, socket.data.unsent);
    },
    close(socket) {
      if (open.has(socket)) fail(socket, "the connection was closed");
    },
    error(socket, error) {
      if (open.has(socket)) fail(socket, error.message);
    },
  };

  return {
    open,
    send,
    /** Rejects when nobody listens. */
    async connect(): Promise<Socket> {
      const data = {
        task: undefined,
        next: undefined,
        dueMs: 0,
        received: undefined,
        unsent: undefined,
        done() {},
      };
      const socket = await Bun.connect<Connection>({ hostname: "127.0.0.1", port, data, socket: handlers });
      open.add(socket);
      return socket;
    },
    /** Fails whatever is still without an answer. */
    giveUp() {
      for (const socket of open) {
        fail(socket, `no answer within ${answerTimeoutMs / 1000} s`);
        socket.terminate();
      }
    },
  };
}

type Prepared = {
  seen: ReturnType<typeof tally>;
  late: number[];
  /** Resolves when all is sent and answered. */
  run(): Promise<void>;
};

/** Every connection sends its next request when the one before is answered. */
async function closedLoop(
  port: number,
  seconds: number,
  nextTask: () => Task,
  created: (location: string) => void,
): Promise<Prepared> {
  const seen = tally();
  let endMs = 0;
  const { open, send, connect, giveUp } = network(port, seen, (_, { status, location }, fault) => {
    if (status === 201 && fault === "") created(location);
    return performance.now() < endMs ? { task: nextTask(), afterMs: 0 } : undefined;
  });
  const sockets = await Promise.all(Array.from({ length: connections }, connect));
  return {
    seen,
    late: [],
    async run() {
      endMs = performance.now() + seconds * 1000;
      const all = sockets.map((socket) => {
        const { promise, resolve } = Promise.withResolvers<void>();
        socket.data.done = resolve;
        if (open.has(socket)) send(socket, nextTask(), performance.now());
        else resolve();
        return promise;
      });
      await within(Promise.all(all), seconds * 1000 + answerTimeoutMs, giveUp);
    },
  };
}

/** Every user comes when due, on a connection of its own, whether earlier ones are answered or not. */
function openLoop(
  clock: Worker,
  port: number,
  { users, expected }: { users: readonly User[]; expected: number },
  read: (location: string) => Task,
  created: (location: string) => void,
): Prepared {
  const seen = tally();
  const late: number[] = [];
  const { send, connect, giveUp } = network(port, seen, ({ pauseMs }, { status, location }, fault) => {
    if (status !== 201 || fault !== "") return undefined;
    created(location);
    return { task: read(location), afterMs: pauseMs ?? 0 };
  });
  return {
    seen,
    late,
    async run() {
      if (users.length === 0) return;
      const { promise: finished, resolve } = Promise.withResolvers<void>();
      const startMs = performance.now();
      let [next, pending] = [0, 0];
      const done = () => {
        if (--pending === 0 && next === users.length) resolve();
      };
      const begin = async (task: Task, dueMs: number) => {
        pending++;
        try {
          const socket = await connect();
          socket.data.done = done;
          send(socket, task, dueMs);
        } catch (error) {
          seen.record(task, performance.now() - dueMs, (error as Error).message);
          done();
        }
      };
      const tick = () => {
        const nowMs = performance.now() - startMs;
        for (let user = users[next]; user !== undefined && user.dueMs <= nowMs; user = users[next]) {
          next++;
          late.push(nowMs - user.dueMs);
          void begin(user.task, startMs + user.dueMs);
        }
        const user = users[next];
        if (user) clock.postMessage(user.dueMs - nowMs);
      };
      clock.onmessage = tick;
      tick();
      const lastMs = users.at(-1)?.dueMs ?? 0;
      await within(finished, lastMs + answerTimeoutMs, giveUp);
      // Each distinct valid apelido is taken once, whoever comes first: the number is exact.
      if (seen.created !== expected) {
        seen.faults[`create: ${seen.created} × 201, expected ${expected}`] = 1;
      }
    },
  };
}

/** Resolves with `work`; gives up after `ms` on what is open then, and as long again on what came late. */
async function within(work: Promise<unknown>, ms: number, giveUp: () => void): Promise<void> {
  const timer = setInterval(giveUp, ms);
  await work;
  clearInterval(timer);
}

async function main(options: LoadOptions): Promise<void> {
  const { locations, read, person, users, reads } = world(options);
  const { port } = options;
  const created = (location: string) => void locations.push(location);
  const clock = new Worker(new URL("clock.ts", import.meta.url));
  let prepared: Prepared | undefined;

  async function prepare(load: Load, seconds: number): Promise<Prepared> {
    if (load === "official") return openLoop(clock, port, users(seconds), read, created);
    if (load === "saturation") return await closedLoop(port, seconds, person, created);
    const tasks = reads();
    let asked = 0;
    return await closedLoop(port, seconds, () => tasks[asked++ % tasks.length] as Task, created);
  }
  async function run({ seen, late, run }: Prepared): Promise<Sent> {
    const [startMs, before] = [performance.now(), process.cpuUsage()];
    await run();
    const { user, system } = process.cpuUsage(before);
    const seconds = (performance.now() - startMs) / 1000;
    tell("ended");
    const { p50, p99 } = late.length === 0 ? { p50: 0, p99: 0 } : summarise(late, 0);
    return {
      seconds,
      cpuS: (user + system) / 1e6,
      requests: seen.requests(),
      created: seen.created,
      faults: seen.faults,
      late: late.length === 0 ? null : { p50, p99 },
    };
  }
  process.on("message", async (order: Order) => {
    if (order !== "go") {
      prepared = await prepare(order.prepare, order.seconds);
      tell("ready");
    } else if (prepared) {
      tell(await run(prepared));
    }
  });
  process.on("disconnect", () => process.exit());
}

function tell(report: Report) {
  process.send?.(report);
}

if (import.meta.main) {
  const [options = ""] = readPositionals("Usage: load.ts OPTIONS   cost.ts starts it, with JSON", 1);
  if (!options.startsWith("{")) {
    console.error("OPTIONS: expected a JSON object; see --help");
    process.exit(2);
  }
  await main(JSON.parse(options) as LoadOptions);
}
