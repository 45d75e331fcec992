// A proxy for Postgres that makes connections silent, or ends them, at a given step of the protocol. Used within a test,
// or as a process: bun silent-proxy.ts DATABASE_URL PATH CONTROL
// https://www.postgresql.org/docs/current/protocol-flow.html
import { rmSync } from "node:fs";
import net from "node:net";

/**
 * The last message that a connection carries:
 * accept           nothing at all passes
 * ssl              SSLRequest
 * startup          the startup message
 * authentication   the request for authentication, which is "ok" if none is needed
 * before ready     all of the startup's answer but ReadyForQuery
 * ready            the startup's ReadyForQuery
 * parse            Parse of a statement
 * bind             Bind of a statement: Postgres has the statement, but no Execute for it
 * execute          the whole statement: Postgres runs it, and the client gets no answer
 * half             half of the bytes of a statement's answer
 * row              the first row of a statement's answer
 * answered         the whole answer of a statement
 */
export type Step =
  | ("accept" | "ssl" | "startup" | "authentication" | "before ready" | "ready")
  | ("parse" | "bind" | "execute" | "half" | "row" | "answered");

export type Fault = {
  at: Step;
  /** Only for statements that match. */
  sql?: RegExp;
  /** The fault happens at this match, counted over all connections; default 1. */
  nth?: number;
  /** Also at each later match, until heal(). */
  always?: boolean;
  /** Messages of the client still reach Postgres. */
  answersOnly?: boolean;
  /** Ends the connection instead of silencing it. */
  close?: boolean;
};

/** A connection that was silenced or ended. */
export type Silenced = {
  /** The statement in flight. */
  sql: string;
  /** Resolves when the client has closed it. */
  closed: Promise<void>;
};

export type ProxyOptions = {
  /** A Unix socket to listen on; default: a free port of 127.0.0.1. */
  path?: string;
  /**
   * The time that a silent connection to Postgres stays open after the client has closed its end; default: until
   * the proxy is disposed. With a time, a connection without a transaction ends at once.
   */
  heldMs?: number;
};

type Armed = Fault & { left: number; fired: (silenced: Silenced) => void };
type Link = {
  client: net.Socket;
  faults: Armed[];
  isSilent(): boolean;
  silence(fault: Pick<Fault, "answersOnly" | "close">, sql: string): Silenced;
};

export type SilentProxy = Awaited<ReturnType<typeof silentProxy>>;

const sslRequest = 80877103;

/** Forwards everything to the Postgres at `databaseUrl`, apart from the faults. */
export async function silentProxy(databaseUrl: string, { path, heldMs }: ProxyOptions = {}) {
  const links = new Set<Link>();
  const sockets = new Set<net.Socket>();
  const awaited = new Set<{ sql: RegExp; resolve: () => void }>();
  let faults: Armed[] = [];
  const pids: number[] = [];
  let accepts = 0;
  let closesAtOnce = false;

  // With allowHalfOpen a silent connection stays open after its client has ended it.
  const server = net.createServer({ allowHalfOpen: true }, (client) => {
    accepts++;
    client.on("error", () => {}); // a close follows
    if (closesAtOnce) client.destroy();
    else link(client);
  });
  await new Promise<void>((resolve) =>
    path === undefined ? server.listen(0, "127.0.0.1", resolve) : server.listen(path, resolve),
  );

  const arm = (fault: Fault, fired: Armed["fired"] = () => {}) => ({ ...fault, left: fault.nth ?? 1, fired });

  return {
    /** A DATABASE_URL that leads through the proxy. */
    url: urlThrough(databaseUrl, server.address()),
    /** Resolves when the fault has happened once. */
    fault(fault: Fault): Promise<Silenced> {
      const { promise, resolve } = Promise.withResolvers<Silenced>();
      faults.push(arm(fault, resolve));
      return promise;
    },
    /** The same fault for each open connection, once. */
    faultEach(fault: Fault): void {
      for (const each of links) each.faults.push(arm(fault));
    },
    /** Silences all open connections. */
    silenceOpen(): Silenced[] {
      return [...links].filter((each) => !each.isSilent()).map((each) => each.silence({}, ""));
    },
    /** Ends one of the open connections that are not silent. */
    endOne(random: () => number): void {
      const open = [...links].filter((each) => !each.isSilent());
      open[Math.floor(random() * open.length)]?.silence({ close: true }, "");
    },
    /** Ends all open connections. */
    endAll(): void {
      for (const each of links) each.silence({ close: true }, "");
    },
    /** Closes each new connection when it is accepted, until heal(). */
    closeAtOnce(): void {
      closesAtOnce = true;
    },
    /** Ends all faults; a silent connection stays silent. */
    heal(): void {
      faults = [];
      closesAtOnce = false;
    },
    /** Resolves when a matching statement has been answered completely. */
    answered(sql: RegExp): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      const waiting = { sql, resolve };
      awaited.add(waiting);
      return promise.finally(() => awaited.delete(waiting));
    },
    /** The number of open connections of clients, silent ones included. */
    connections: () => links.size,
    accepts: () => accepts,
    /** The process ids of the backends it has connected to. */
    pids: () => [...pids],
    [Symbol.dispose](): void {
      server.close();
      for (const socket of sockets) socket.destroy();
    },
  };

  function link(client: net.Socket) {
    const postgres = connectTo(databaseUrl);
    const statements = new Map<string, string>();
    const portals = new Map<string, string>();
    // Statements that Postgres has not answered yet, oldest first.
    const unanswered: { sql: string; fault: Armed | undefined }[] = [];
    let phase: "new" | "starting" | "up" | "encrypted" = "new";
    let [deaf, mute, silent] = [false, false, false]; // deaf to the client, mute to it
    let [executed, inTransaction] = ["", false];
    let held: Buffer[] = []; // the answer of which only half passes
    const { promise: closed, resolve: clientClosed } = Promise.withResolvers<void>();
    const own: Link = { client, faults: [], isSilent: () => silent, silence };
    links.add(own);
    for (const socket of [client, postgres]) sockets.add(socket);

    hit("accept");
    forward(client, postgres, {
      length: (bytes) => (phase === "new" ? startupLength(bytes) : lengthUp(bytes)),
      passes: () => !deaf,
      handle: fromClient,
    });
    forward(postgres, client, {
      length: (bytes) => (phase === "new" ? bytes.length : lengthUp(bytes)),
      passes: () => !mute,
      handle: fromPostgres,
    });
    postgres.on("error", () => {}); // a close follows
    client.on("end", () => {
      if (!silent) client.end();
      gone();
    });
    client.on("close", () => {
      sockets.delete(client);
      gone();
    });
    postgres.on("close", () => {
      sockets.delete(postgres);
      if (!silent) client.end();
    });

    /** The client has closed its end. */
    function gone() {
      if (!links.delete(own)) return;
      clientClosed();
      if (!silent || (heldMs !== undefined && !inTransaction)) postgres.destroy();
      else if (heldMs !== undefined) setTimeout(() => postgres.destroy(), heldMs).unref();
    }

    function lengthUp(bytes: Buffer): number {
      return phase === "encrypted" ? bytes.length : messageLength(bytes);
    }

    /** The message in flight still passes. */
    function silence({ close, answersOnly }: Pick<Fault, "answersOnly" | "close">, sql: string): Silenced {
      mute = true;
      deaf ||= !answersOnly;
      if (close) setImmediate(() => client.end(() => client.destroy()));
      else silent = true;
      return { sql, closed };
    }

    function due(at: Step, sql: string): Armed | undefined {
      if (mute) return undefined;
      const fits = (each: Armed) => each.at === at && (each.sql?.test(sql) ?? true) && --each.left <= 0;
      const found = own.faults.find(fits) ?? faults.find(fits);
      if (found?.always) return found;
      own.faults = own.faults.filter((each) => each !== found);
      faults = faults.filter((each) => each !== found);
      return found;
    }

    function hit(at: Step, sql = "") {
      const fault = due(at, sql);
      fault?.fired(silence(fault, sql));
    }

    function fromClient(message: Buffer): Buffer {
      if (phase === "encrypted") return message;
      if (phase === "new") {
        if (message.readInt32BE(4) === sslRequest) hit("ssl");
        else {
          phase = "starting";
          hit("startup");
        }
        return message;
      }
      const kind = kindOf(message);
      const [first = "", second = ""] = message.toString("utf8", 5).split("\0", 2);
      if (kind === "P") {
        statements.set(first, second);
        hit("parse", second);
      } else if (kind === "B") {
        portals.set(first, statements.get(second) ?? "");
        hit("bind", statements.get(second));
      } else if (kind === "E") executed = portals.get(first) ?? "";
      else if (kind === "Q") sent(first);
      else if (kind === "S") sent(executed);
      return message;
    }

    function sent(sql: string) {
      executed = "";
      const fault = due("half", sql) ?? due("row", sql) ?? due("answered", sql);
      unanswered.push({ sql, fault });
      hit("execute", sql);
    }

    /** The part of the message that passes. */
    function fromPostgres(message: Buffer): Buffer | undefined {
      const kind = kindOf(message);
      if (phase === "new" && kind === "S") phase = "encrypted"; // the answer to SSLRequest is this one byte
      if (phase === "new" || phase === "encrypted") return message;
      const isLast = kind === "Z";
      if (isLast) inTransaction = message.toString("latin1", 5) !== "I";
      if (phase === "starting") {
        if (kind === "R") hit("authentication");
        if (kind === "K") pids.push(message.readInt32BE(5));
        if (!isLast) return message;
        phase = "up";
        hit("before ready");
        if (mute) return undefined;
        hit("ready");
        return message;
      }
      const [{ sql, fault } = { sql: "", fault: undefined }] = unanswered;
      if (isLast) unanswered.shift();
      if (fault?.at === "half") {
        held.push(message);
        if (!isLast) return undefined;
        fault.fired(silence(fault, sql));
        const all = Buffer.concat(held);
        held = [];
        return all.subarray(0, all.length >> 1);
      }
      if ((fault?.at === "row" && kind === "D") || (fault?.at === "answered" && isLast)) {
        fault.fired(silence(fault, sql));
      } else if (isLast && !mute) {
        for (const each of awaited) if (each.sql.test(sql)) each.resolve();
      }
      return message;
    }
  }
}

type Way = {
  /** The length of the first message; Infinity: more bytes are needed. */
  length(bytes: Buffer): number;
  passes(): boolean;
  /** Called for each message. Returns the part that passes. */
  handle(message: Buffer): Buffer | undefined;
};

function forward(from: net.Socket, to: net.Socket, { length, passes, handle }: Way) {
  let rest: Buffer = Buffer.alloc(0);
  from.on("data", (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    const passing: Buffer[] = [];
    for (let end = length(rest); end > 0 && end <= rest.length; end = length(rest)) {
      const message = rest.subarray(0, end);
      rest = rest.subarray(end);
      const before = passes(); // the last message itself passes
      const part = handle(message);
      if (before && part) passing.push(part);
    }
    if (passing.length === 0 || !to.writable || to.write(Buffer.concat(passing))) return;
    from.pause();
    to.once("drain", () => from.resume());
  });
}

const kindOf = (message: Buffer) => String.fromCharCode(message[0] as number);
/** A letter, four bytes with the length of the rest including themselves, and the rest. */
const messageLength = (bytes: Buffer) => (bytes.length < 5 ? Infinity : 1 + bytes.readInt32BE(1));
/** The first message of a client has no letter. */
const startupLength = (bytes: Buffer) => (bytes.length < 8 ? Infinity : bytes.readInt32BE(0));

function connectTo(databaseUrl: string): net.Socket {
  const { hostname, port, searchParams } = new URL(databaseUrl);
  const folder = searchParams.get("host");
  return folder === null
    ? net.connect(Number(port || 5432), hostname)
    : net.connect(`${folder}/.s.PGSQL.${port || 5432}`);
}

function urlThrough(databaseUrl: string, address: ReturnType<net.Server["address"]>): string {
  const url = new URL(databaseUrl);
  url.searchParams.delete("host");
  if (address !== null && typeof address === "object") url.host = `127.0.0.1:${address.port}`;
  return url.href;
}

/** The command to a process. */
export type Order = Pick<Fault, "at" | "nth" | "answersOnly"> & {
  /** A regular expression. */
  sql?: string;
  /** Silences all open connections at once, at any step. */
  all?: boolean;
  /** From 0 to 1: selects the connection that ends first, so that a new one passes the startup. */
  pick: number;
  /** The time within which clients must close silent connections. */
  boundMs: number;
};
/** The outcome: the statement in flight, the number of silent connections, and how many of them are closed. */
export type Obeyed = { sql: string; silent: number; closed: number };

const heldMs = 5000; // longer than Postgres keeps an idle transaction

if (import.meta.main) {
  const given = process.argv.slice(2);
  const usage =
    "Usage: bun silent-proxy.ts DATABASE_URL PATH CONTROL   two Unix sockets: of the proxy, and for orders";
  if (given.includes("--help") || given.includes("-h")) {
    console.log(usage);
    process.exit(0);
  }
  const [databaseUrl, path, control] = given as [string, string, string];
  if (given.length !== 3 || !URL.canParse(databaseUrl)) {
    console.error("expected a URL of Postgres and two paths; see --help");
    process.exit(2);
  }
  for (const socket of [path, control]) rmSync(socket, { force: true });
  const proxy = await silentProxy(databaseUrl, { path, heldMs });

  // Half of the next answer passes, then the connection ends.
  process.on("SIGUSR2", () => proxy.faultEach({ at: "half", close: true }));

  Bun.serve({
    unix: control,
    async fetch(request, server) {
      server.timeout(request, 0);
      return Response.json(await obey((await request.json()) as Order));
    },
  });

  async function obey({ all, sql, pick, boundMs, ...fault }: Order): Promise<Obeyed> {
    const silenced = all
      ? proxy.silenceOpen()
      : [await faultAt({ ...fault, ...(sql === undefined ? {} : { sql: new RegExp(sql) }) }, pick)];
    let closed = 0;
    const each = silenced.map((one) => one.closed.then(() => closed++));
    await Promise.race([Promise.all(each), Bun.sleep(boundMs)]);
    return { sql: silenced[0]?.sql.trim() ?? "", silent: silenced.length, closed };
  }

  function faultAt(fault: Fault, pick: number): Promise<Silenced> {
    const silencing = proxy.fault(fault);
    if (fault.at === "parse")
      proxy.endAll(); // each connection parses a statement once
    else if (fault.sql === undefined) proxy.endOne(() => pick);
    return silencing;
  }
}
