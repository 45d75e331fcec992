import { type Answer, encode, headerOf, type Request, readAnswer } from "./http.ts";
import type { Result } from "./results.ts";

export type ConnectionOptions = {
  url: string;
  /** Most connections at once. They are kept alive, and requests queue for a free one. */
  connections?: number;
  /** Each user (a request and what follows it) has a connection of its own. */
  connectionPerUser?: boolean;
  timeoutMs?: number;
};

/** A request that is due. `record` is called once. `done` is called after it, and after the request that follows. */
type Job = { request: Request; dueMs: number; record(result: Result, answer?: Answer): void; done(): void };
type Connection = { job: Job | undefined; received: Buffer | undefined; unsent: Buffer | undefined };
type Socket = Bun.Socket<Connection>;

const mostOpening = 64; // below the usual listen backlog
const sweepMs = 100;

/** HTTP/1.1 over a bounded number of connections. Takes little CPU. */
export function connect({
  url,
  connections = 4000,
  connectionPerUser = false,
  timeoutMs = 10_000,
}: ConnectionOptions) {
  const { hostname, host, port, protocol } = new URL(url);
  const tls = protocol === "https:";
  const address = { hostname: hostname.replace(/^\[|\]$/g, ""), port: Number(port) || (tls ? 443 : 80), tls };
  const open = new Set<Socket>();
  const idle: Socket[] = [];
  const queue = fifo<Job>();
  let opening = 0;

  function dispatch(job: Job) {
    const socket = takeIdle();
    if (socket) return send(socket, job);
    queue.add(job);
    grow();
  }

  /** At random: the connections that became idle last are those of the slower instance. */
  function takeIdle(): Socket | undefined {
    const last = idle.pop();
    const nth = Math.floor(Math.random() * (idle.length + 1));
    if (last === undefined || nth === idle.length) return last;
    const socket = idle[nth];
    idle[nth] = last;
    return socket;
  }

  /** Opens connections for queued requests. If one cannot be opened, the oldest queued request fails. */
  function grow() {
    while (opening < Math.min(mostOpening, queue.size(), connections - open.size)) {
      openOne()
        .catch((error: Error) => {
          const job = queue.take();
          if (job) settle(job, error.message);
        })
        .finally(grow);
    }
  }

  async function openOne() {
    opening++;
    try {
      const data = { job: undefined, received: undefined, unsent: undefined };
      const socket = await Bun.connect<Connection>({ ...address, data, socket: handlers });
      open.add(socket);
      release(socket);
    } finally {
      opening--;
    }
  }

  function release(socket: Socket) {
    const job = queue.take();
    if (job) send(socket, job);
    else idle.push(socket);
  }

  function discard(socket: Socket) {
    open.delete(socket);
    const at = idle.indexOf(socket);
    if (at !== -1) idle.splice(at, 1);
    grow();
  }

  function send(socket: Socket, job: Job) {
    socket.data.job = job;
    write(socket, encode(job.request, host));
  }

  function write(socket: Socket, bytes: Buffer) {
    const written = socket.write(bytes);
    socket.data.unsent = written < bytes.length ? bytes.subarray(Math.max(0, written)) : undefined;
  }

  /** Records a request without an answer. */
  function settle({ request: { kind }, dueMs, record, done }: Job, fault: string) {
    record({ kind, dueMs, ms: performance.now() - dueMs, status: 0, fault });
    done();
  }

  function fail(socket: Socket, fault: string) {
    const { job } = socket.data;
    socket.data.job = undefined;
    discard(socket);
    socket.terminate();
    if (job) settle(job, fault);
  }

  function receive(socket: Socket, chunk: Buffer) {
    const { data } = socket;
    const received = data.received ? Buffer.concat([data.received, chunk]) : chunk;
    const answer = readAnswer(received);
    if (!answer) {
      data.received = Buffer.from(received); // a copy, because Bun reuses the chunk's memory
      return;
    }
    data.received = undefined;
    const { job } = data;
    if (!job || answer.bytes < received.length) throw new Error("more than one answer");
    const { request, dueMs, record, done } = job;
    const { kind } = request;
    const ms = performance.now() - dueMs;
    const fault = request.check(answer);
    data.job = undefined;
    const next = fault === "" ? request.follow?.(answer) : undefined;
    const kept = next !== undefined && connectionPerUser;
    if (!kept && (connectionPerUser || headerOf(answer, "connection")?.toLowerCase() === "close")) {
      discard(socket);
      socket.end();
    } else if (!kept) release(socket);
    record({ kind, dueMs, ms, status: answer.status, fault }, answer);
    if (!next) return done();
    const proceed = () => {
      const following = { ...job, request: next.request, dueMs: performance.now() };
      if (!kept) dispatch(following);
      else if (open.has(socket)) send(socket, following);
      else settle(following, "the connection was closed");
    };
    if (next.afterMs === 0) proceed();
    else setTimeout(proceed, next.afterMs);
  }

  const handlers: Bun.SocketHandler<Connection> = {
    data(socket, chunk) {
      try {
        receive(socket, chunk);
      } catch (error) {
        fail(socket, (error as Error).message);
      }
    },
    drain(socket) {
      if (socket.data.unsent) write(socket, socket.data.unsent);
    },
    close: (socket) => fail(socket, "the connection was closed"),
    error: (socket, error) => fail(socket, error.message),
  };

  /** Fails requests that waited too long for an answer or a connection. */
  const sweeping = setInterval(() => {
    const oldestMs = performance.now() - timeoutMs;
    const fault = `no answer within ${timeoutMs / 1000} s`;
    for (const socket of open) if ((socket.data.job?.dueMs ?? oldestMs) < oldestMs) fail(socket, fault);
    while ((queue.first()?.dueMs ?? oldestMs) < oldestMs) settle(queue.take() as Job, fault);
  }, sweepMs);

  return {
    dispatch,
    /** Opens `n` connections in advance. Rejects if nothing listens. */
    async open(n: number): Promise<void> {
      await Promise.all(Array.from({ length: n }, openOne));
    },
    /** Fails all requests without an answer. */
    close() {
      clearInterval(sweeping);
      for (let job = queue.take(); job; job = queue.take()) settle(job, "the generator was closed");
      for (const socket of open) fail(socket, "the generator was closed");
    },
  };
}

/** A queue. The first item of a long Set takes 20 µs: it is behind all deleted ones. */
function fifo<T>() {
  let items: (T | undefined)[] = [];
  let head = 0;
  return {
    size: () => items.length - head,
    add: (item: T) => void items.push(item),
    first: () => items[head],
    take(): T | undefined {
      const item = items[head];
      if (item === undefined) return undefined;
      items[head++] = undefined;
      if (2 * head >= items.length) {
        items = items.slice(head);
        head = 0;
      }
      return item;
    },
  };
}
