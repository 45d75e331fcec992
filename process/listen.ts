import { lookup } from "node:dns/promises";
import { chmodSync, rmSync } from "node:fs";
import { listenerOf } from "./port-owner.ts";
import type { Settings } from "./settings.ts";

export type Handlers = {
  handle(request: Request): Promise<Response>;
  /** The answer when `handle` throws. */
  failed(error: Error): Response;
};

const upstreamKeepAliveMs = 1000; // keepalive_timeout of the upstream in nginx.conf
const idleTimeoutS = 75; // longer than nginx keeps an idle connection, so that nginx closes it

/** RangeError, in one line, names the invalid setting. */
export async function listen(settings: Settings, handlers: Handlers) {
  const { SOCKET } = settings;
  const server = await (SOCKET === undefined ? onPort(settings, handlers) : onSocket(SOCKET, handlers));
  return {
    url: SOCKET ?? server.url.href,
    /**
     * Sends new requests to the other instance: nginx uses it when this file is gone. nginx has to close each
     * connection: it might just be writing a POST, which it cannot repeat. On a port there is no other instance.
     */
    async leave() {
      if (SOCKET === undefined) return;
      rmSync(SOCKET, { force: true });
      server.reload({
        ...options(handlers),
        async fetch(request) {
          const response = await handlers.handle(request);
          response.headers.set("Connection", "close");
          return response;
        },
      });
      await Bun.sleep(upstreamKeepAliveMs * 1.5);
    },
    /** Resolves when all requests in flight are answered. */
    close: () => server.stop(),
    kill: () => server.stop(true),
  };
}

const options = ({ handle, failed }: Handlers) => ({
  fetch: handle,
  error: failed,
  maxRequestBodySize: Number.MAX_SAFE_INTEGER, // they have their own limit
});

async function onPort({ HOST, PORT }: Settings, handlers: Handlers) {
  try {
    return Bun.serve({ ...options(handlers), hostname: HOST, port: PORT, idleTimeout: idleTimeoutS });
  } catch (error) {
    throw await cannotListen(error as NodeJS.ErrnoException, HOST, PORT);
  }
}

async function onSocket(path: string, handlers: Handlers) {
  let server: ReturnType<typeof Bun.serve> | undefined;
  try {
    await removeStaleSocket(path);
    server = Bun.serve({ ...options(handlers), unix: path });
    chmodSync(path, 0o666); // nginx is another user; the folder's rights decide
    return server;
  } catch (error) {
    await server?.stop(true);
    if (error instanceof RangeError) throw error;
    throw new RangeError(`SOCKET: ${(error as Error).message}; set a path in a folder that is writable`);
  }
}

/** Bun's code is the same for both settings. Port 0 is free on every valid address. */
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

/** A killed server's file blocks the next one. */
async function removeStaleSocket(path: string): Promise<void> {
  const alive = await Bun.connect({ unix: path, socket: { data() {} } }).catch(() => undefined);
  if (alive) {
    alive.end();
    throw new RangeError(`SOCKET: another server is listening on ${path}`);
  }
  rmSync(path, { force: true });
}
