import net from "node:net";

/** What a client of the registry at `url` does. */
export function client(url: string, init: BunFetchRequestInit = {}) {
  const to = (path: string) => new URL(path, url).href;
  return {
    get: (path: string) => fetch(to(path), init),
    request: (path: string, more: RequestInit) => fetch(to(path), { ...init, ...more }),
    post: (body: unknown, headers: Record<string, string> = { "Content-Type": "application/json" }) =>
      fetch(to("/pessoas"), {
        ...init,
        method: "POST",
        headers,
        body: body instanceof Uint8Array || typeof body === "string" ? body : JSON.stringify(body),
      }),
    async search(term: string): Promise<Found[]> {
      const response = await fetch(to(`/pessoas?t=${encodeURIComponent(term)}`), init);
      if (response.status !== 200) throw new Error(`GET /pessoas?t=: ${response.status}`);
      return (await response.json()) as Found[];
    },
    count: async () => Number(await (await fetch(to("/contagem-pessoas"), init)).text()),
  };
}

export type Found = {
  id: string;
  apelido: string;
  nome: string;
  nascimento: string;
  stack: string[] | null;
};
export type Problem = {
  type: string;
  title: string;
  status: number;
  detail: string;
  errors?: { field: string; message: string }[];
  location?: string;
};

let serial = 0;
/** A valid person whose apelido nobody else in this run has. */
export function newPessoa() {
  const apelido = `p${++serial}-${crypto.randomUUID().slice(0, 18)}`;
  return {
    apelido,
    nome: `Pessoa ${serial}`,
    nascimento: "1987-06-05",
    stack: ["Bun", "Postgres"] as unknown,
  };
}

/** Sends bytes as they are and resolves with all that came back when the server closes, or when `until` matches. */
export function raw(url: string, bytes: string | Uint8Array, until?: RegExp): Promise<string> {
  const { hostname, port } = new URL(url);
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let received = "";
  const socket = net.connect(Number(port), hostname, () => socket.write(bytes));
  socket.on("data", (data) => {
    received += data.toString("latin1");
    if (until?.test(received)) socket.destroy();
  });
  socket.on("error", reject);
  socket.on("close", () => resolve(received));
  return promise;
}
