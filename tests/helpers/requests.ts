import net from "node:net";

/** A client of the registry at `url`. */
export function client(url: string, init: BunFetchRequestInit = {}) {
  const to = (path: string) => new URL(path, url).href;
  const post = (body: unknown, headers: Record<string, string> = { "Content-Type": "application/json" }) =>
    fetch(to("/pessoas"), {
      ...init,
      method: "POST",
      headers,
      body: body instanceof Uint8Array || typeof body === "string" ? body : JSON.stringify(body),
    });
  return {
    get: (path: string) => fetch(to(path), init),
    request: (path: string, more: RequestInit) => fetch(to(path), { ...init, ...more }),
    post,
    /** Creates a new person with these members changed. Throws unless the answer is 201. */
    async create(change: object = {}): Promise<Found> {
      const response = await post({ ...newPessoa(), ...change });
      if (response.status !== 201) throw new Error(`${response.status}: ${await response.text()}`);
      return (await response.json()) as Found;
    },
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
/** A valid person with an apelido that is unique in this run. */
export function newPessoa() {
  const apelido = `p${++serial}-${crypto.randomUUID().slice(0, 18)}`;
  return {
    apelido,
    nome: `Pessoa ${serial}`,
    nascimento: "1987-06-05",
    stack: ["Bun", "Postgres"] as unknown,
  };
}

/** The JSON of a valid person, padded to `bytes`. */
export const padded = (bytes: number) => {
  const body = JSON.stringify({ ...newPessoa(), padding: "" });
  return body.replace('"padding":""', `"padding":"${"x".repeat(bytes - body.length)}"`);
};

/** Sends a request line of raw bytes, given as latin1; resolves with the answer. */
export const rawRequest = (url: string, method: string, target: string) =>
  raw(url, Buffer.from(`${method} ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`, "latin1"));

/** Sends these bytes; resolves with all received bytes when the server closes, or when `until` matches. */
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
