import { randomFrom } from "../faults/load.ts";

export const kinds = ["create", "read", "search", "termless"] as const;
export type Kind = (typeof kinds)[number];

/** What became of the requests of one phase. Milliseconds count from when a request was due. */
export type Phase = {
  /** How long it lasted; 0 until it has ended. */
  seconds: number;
  sent: number;
  /** Answered as they should be while it lasted. */
  inTime: Record<Kind, number>;
  /** Answered as they should be: a create with 201 and the person, a search without a term with 400, all else with 200. */
  goodMs: number[];
  /** 503 with Retry-After. */
  refusedMs: number[];
};
type Due = {
  kind: Kind;
  at: number;
  bytes: string;
  /** Is in the right answer. */
  expected: string;
  phase: Phase;
};
type Lane = { write(bytes: string): void; end(): void; busy: Due | undefined; received: string };

const tickMs = 2;
const mostLanes = 4000;
const mostOpening = 64; // less than a backlog holds
const share: Record<Kind, number> = { create: 600, read: 600, search: 100, termless: 40 }; // of the contest's load at its peak
const shares = Object.values(share).reduce((sum, each) => sum + each);
const right: Record<Kind, string> = { create: "201", read: "200", search: "200", termless: "400" };
const names = ["Ana", "Silva", "Maria", "Santos", "Francisca", "Oliveira", "Beatriz", "Souza", "Ribeiro"];

/**
 * Sends what the contest's load consists of, for as little CPU as possible: it shares the machine with what it loads.
 * Connections are opened as they are needed, and kept.
 */
export function generator(url: string, abandoned: AbortSignal) {
  const { hostname, port } = new URL(url);
  const random = randomFrom(1);
  const pick = <T>(from: T[]) => from[Math.floor(random() * from.length)] as T;
  const created: string[] = [];
  const wrong: string[] = [];
  const lanes = new Set<Lane>();
  const idle: Lane[] = [];
  let waiting: Due[] = []; // for a lane, the next one last
  let arrived: Due[] = []; // behind them, the next one first
  let opening = 0;
  let serial = 0;
  let answered = () => {};

  const apelido = (n: number) => `o${n.toString(36).padStart(6, "0")}`;
  const request = (line: string, headers = "", body = "") =>
    `${line} HTTP/1.1\r\nHost: x\r\n${headers}\r\n${body}`;

  function next(at: number, phase: Phase): Due {
    phase.sent++;
    let turn = random() * shares;
    if (created.length > 0) {
      turn -= share.search;
      if (turn < 0) {
        const term = random() < 0.5 ? pick(names) : apelido(Math.ceil(random() * serial));
        return { kind: "search", at, phase, expected: "\r\n\r\n[", bytes: request(`GET /pessoas?t=${term}`) };
      }
      turn -= share.termless;
      if (turn < 0)
        return { kind: "termless", at, phase, expected: '"status":400', bytes: request("GET /pessoas") };
      turn -= share.read;
      if (turn < 0) {
        const id = pick(created);
        return { kind: "read", at, phase, expected: `{"id":"${id}",`, bytes: request(`GET /pessoas/${id}`) };
      }
    }
    const person = {
      apelido: apelido(++serial),
      nome: `${pick(names)} ${pick(names)}`,
      nascimento: "1985-09-23",
      stack: random() < 0.5 ? null : ["Bun", "Node", "Postgres"],
    };
    const body = JSON.stringify(person);
    const headers = `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n`;
    return {
      kind: "create",
      at,
      phase,
      expected: body.slice(1),
      bytes: request("POST /pessoas", headers, body),
    };
  }

  function dispatch(due: Due) {
    const lane = anyIdle();
    if (lane) return send(lane, due);
    arrived.push(due);
    if (lanes.size + opening < mostLanes && opening < mostOpening) void open();
  }

  /** At random: the last ones to be answered are all those of the slower instance. */
  function anyIdle(): Lane | undefined {
    const at = Math.floor(random() * idle.length);
    const [lane, last] = [idle[at], idle.pop()];
    if (lane && last && lane !== last) idle[at] = last;
    return lane;
  }

  function send(lane: Lane, due: Due) {
    lane.busy = due;
    lane.write(due.bytes);
  }

  function free(lane: Lane) {
    if (waiting.length === 0) {
      waiting = arrived.reverse();
      arrived = [];
    }
    const due = waiting.pop();
    if (due) send(lane, due);
    else idle.push(lane);
  }

  async function open() {
    const lane: Lane = { write() {}, end() {}, busy: undefined, received: "" };
    opening++;
    try {
      const socket = await Bun.connect({
        hostname,
        port: Number(port),
        socket: { data: (_, bytes) => receive(lane, bytes), close: () => close(lane), error() {} },
      });
      lane.write = (bytes) => socket.write(bytes);
      lane.end = () => socket.terminate();
      lanes.add(lane);
      free(lane);
    } catch {
      // Whoever waits gets another lane, or is told to have waited long.
    } finally {
      opening--;
    }
  }

  function close(lane: Lane) {
    lanes.delete(lane);
    const at = idle.indexOf(lane);
    if (at !== -1) idle.splice(at, 1);
    if (lane.busy) settle(lane.busy, "closed");
  }

  function receive(lane: Lane, bytes: Buffer) {
    const text = lane.received + bytes.toString("latin1");
    const head = text.indexOf("\r\n\r\n");
    const length = /content-length: (\d+)/i.exec(head === -1 ? "" : text.slice(0, head))?.[1];
    const whole =
      length === undefined ? text.endsWith("\r\n0\r\n\r\n") : text.length >= head + 4 + Number(length);
    if (!whole) {
      lane.received = text;
      return;
    }
    lane.received = "";
    const due = lane.busy as Due;
    lane.busy = undefined;
    settle(due, text.slice(9, 12), text);
    free(lane);
  }

  function settle({ kind, at, phase, expected }: Due, status: string, text = "") {
    const ms = performance.now() - at;
    if (status === right[kind] && text.includes(expected)) {
      phase.goodMs.push(ms);
      if (phase.seconds === 0) phase.inTime[kind]++;
    } else if (status === "503" && text.includes("\r\nRetry-After: ")) phase.refusedMs.push(ms);
    else wrong.push(`${kind}: ${status}`);
    if (status === "201") created.push(/Location: \/pessoas\/(\S+)/i.exec(text)?.[1] ?? "no Location");
    answered();
  }

  const begin = (): Phase => {
    const inTime = { create: 0, read: 0, search: 0, termless: 0 };
    return { seconds: 0, sent: 0, inTime, goodMs: [], refusedMs: [] };
  };
  const end = (phase: Phase, started: number) => {
    phase.seconds = (performance.now() - started) / 1000;
    return phase;
  };
  const unanswered = () => waiting.length + arrived.length + [...lanes].filter(({ busy }) => busy).length;

  return {
    /** The ids of those who got 201 so far. */
    created,
    /** All that was neither right nor 503 with Retry-After: other answers, and what came instead of one. */
    wrong,
    /** `n` requests at once, each followed by another one when it is answered, whatever the answer. */
    async closed(n: number, seconds: number): Promise<Phase> {
      abandoned.throwIfAborted();
      const phase = begin();
      const started = performance.now();
      answered = () => queueMicrotask(() => dispatch(next(performance.now(), phase)));
      for (let i = 0; i < n; i++) answered();
      await Bun.sleep(seconds * 1000);
      answered = () => {};
      return end(phase, started);
    },
    /** `rate` requests a second, whether answers come or not. Those still missing at the end come into it later. */
    async open(rate: number, seconds: number): Promise<Phase> {
      const phase = begin();
      const started = performance.now();
      const all = Math.round(rate * seconds);
      while (phase.sent < all) {
        abandoned.throwIfAborted();
        const until = Math.min(all, ((performance.now() - started) / 1000) * rate);
        while (phase.sent < until) dispatch(next(started + (phase.sent * 1000) / rate, phase));
        await Bun.sleep(tickMs);
      }
      return end(phase, started);
    },
    /** Resolves when everything is answered. */
    async quiet() {
      while (unanswered() > 0) {
        abandoned.throwIfAborted();
        await Bun.sleep(20);
      }
    },
    end() {
      for (const lane of lanes) lane.end();
    },
  };
}
