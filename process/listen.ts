import { lookup } from "node:dns/promises";
import { chmodSync, rmSync } from "node:fs";
import { listenerOf } from "./port.ts";
import type { Settings } from "./settings.ts";

/** What answers requests. */
export type Service = {
  handle(request: Request): Promise<Response>;
  /** The answer when `handle` throws. */
  failed(error: Error): Response;
};

export type Listening = {
  url: string;
  /** Stops accepting; resolves when what is in flight is answered. */
  close(): Promise<void>;
  /** Closes all connections at once. */
  kill(): Promise<void>;
};

const upstreamKeepAliveMs = 1000; // keepalive_timeout of the upstream in nginx.conf
const idleTimeoutS = 75; // longer than nginx keeps an idle connection: the upstream must not be the one that closes it

/** Listens on SOCKET, else on HOST and PORT. RangeError, of one line, names the setting that prevents it. */
export async function listen(settings: Settings, service: Service): Promise<Listening> {
  const { SOCKET } = settings;
  const server = await (SOCKET === undefined ? onPort(settings, service) : onSocket(SOCKET, service));
  return {
    url: SOCKET ?? server.url.href,
    async close() {
      if (SOCKET !== undefined) await leave(server, service, SOCKET);
      await server.stop();
    },
    kill: () => server.stop(true),
  };
}

const options = ({ handle, failed }: Service) => ({
  fetch: handle,
  error: failed,
  maxRequestBodySize: Number.MAX_SAFE_INTEGER, // the service has its own limit
});

async function onPort({ HOST, PORT }: Settings, service: Service) {
  try {
    return Bun.serve({ ...options(service), hostname: HOST, port: PORT, idleTimeout: idleTimeoutS });
  } catch (error) {
    throw await cannotListen(error as NodeJS.ErrnoException, HOST, PORT);
  }
}

async function onSocket(path: string, service: Service) {
  try {
    await removeStaleSocket(path);
    const server = Bun.serve({ ...options(service), unix: path });
    chmodSync(path, 0o666); // nginx is another user; who may reach the socket is up to its folder
    return server;
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
async function leave(
  server: Bun.Server<undefined>,
  { handle, failed }: Service,
  socket: string,
): Promise<void> {
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
