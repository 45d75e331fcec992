/** A request and the check of its answer. */
export type Request = {
  /** What results are grouped by: "create", "read", … */
  kind: string;
  method: "GET" | "POST";
  path: string;
  /** JSON. */
  body?: string;
  /** Called once, with the whole answer. Returns its fault, "" if there is none. */
  check(answer: Answer): string;
  /** The same user's next request, sent after `afterMs`. Called only after a right answer. */
  follow?(answer: Answer): { request: Request; afterMs: number } | undefined;
};

export type Answer = {
  status: number;
  /** The status line and the headers. */
  head: string;
  body: Buffer;
  /** Length of the whole answer. */
  bytes: number;
};

const headers = {
  location: /\r\nlocation: *([^\r]*)/i,
  connection: /\r\nconnection: *([^\r]*)/i,
  "retry-after": /\r\nretry-after: *([^\r]*)/i,
};

/** The value of a header; undefined if the answer does not have it. */
export function headerOf({ head }: Pick<Answer, "head">, name: keyof typeof headers): string | undefined {
  return headers[name].exec(head)?.[1];
}

/** The same bytes as Gatling 3.9.5 sends. `host`: host and port. */
export function encode({ method, path, body }: Request, host: string): Buffer {
  const type = body === undefined ? "" : "content-type: application/json\r\n";
  const length = body === undefined ? "" : `content-length: ${Buffer.byteLength(body)}\r\n`;
  const head = `${method} ${path} HTTP/1.1\r\nuser-agent: Agente do Caos - 2023\r\n${type}accept: */*\r\nhost: ${host}\r\n`;
  return Buffer.from(`${head}${length}\r\n${body ?? ""}`);
}

/** The first answer in `received`; undefined while it is incomplete. Throws if it is not HTTP/1.1. */
export function readAnswer(received: Buffer): Answer | undefined {
  const headEnd = received.indexOf("\r\n\r\n");
  if (headEnd === -1) return undefined;
  const head = received.toString("latin1", 0, headEnd);
  const status = /^HTTP\/1\.1 (\d{3})/.exec(head)?.[1];
  if (status === undefined) throw new Error("this is no answer in HTTP/1.1");
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
  return { status: Number(status), head, body: rest.body, bytes: rest.end };
}

/** While the last chunk is missing, `end` is larger than `received.length`. */
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
