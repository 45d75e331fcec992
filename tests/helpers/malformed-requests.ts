/** Invalid or ambiguous requests. Each must get one answer with a matching status, and then the end of the connection. */
export const shapes: [what: string, status: RegExp, bytes: string][] = [
  [
    "a length and chunks (CL.TE)",
    /400/,
    post("Content-Length: 30\r\nTransfer-Encoding: chunked", "0\r\n\r\nGET /metrics HTTP/1.1\r\n\r\n"),
  ],
  [
    "chunks and a length (TE.CL)",
    /400/,
    post("Transfer-Encoding: chunked\r\nContent-Length: 4", "5c\r\nGET /metrics HTTP/1.1\r\n\r\n0\r\n\r\n"),
  ],
  [
    "two lengths",
    /400/,
    post("Content-Length: 2\r\nContent-Length: 40", "{}GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"),
  ],
  ["a list of lengths", /400/, post("Content-Length: 2, 2", "{}")],
  ["a negative length", /400/, post("Content-Length: -2", "{}")],
  ["a length in hexadecimal", /400/, post("Content-Length: 0x2", "{}")],
  ["a length of 2^64 + 2", /400/, post("Content-Length: 18446744073709551618", "{}")],
  ["a length that is no number", /400/, post("Content-Length: ", "{}")],
  ["a space before the colon of a length", /400/, post("Content-Length : 2", "{}")],
  ["an encoding like chunked", /400|501/, post("Transfer-Encoding: xchunked", "0\r\n\r\n")],
  ["an encoding after chunked", /400|501/, post("Transfer-Encoding: chunked, identity", "0\r\n\r\n")],
  ["a control character before chunked", /400|501/, post("Transfer-Encoding:\x0bchunked", "0\r\n\r\n")],
  ["two encodings", /400/, post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n")],
  ["a space before the colon of an encoding", /400/, post("Transfer-Encoding : chunked", "0\r\n\r\n")],
  ["a folded header", /400/, post("X: y\r\n Transfer-Encoding: chunked", "0\r\n\r\n")],
  [
    "a chunk of 2^64 bytes",
    /400/,
    post("Transfer-Encoding: chunked", "10000000000000002\r\n{}\r\n0\r\n\r\n"),
  ],
  ["a chunk of a negative length", /400/, post("Transfer-Encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n")],
  [
    "a chunk longer than it says",
    /400/,
    post("Transfer-Encoding: chunked", "2\r\n{}GET /metrics HTTP/1.1\r\n\r\n"),
  ],
  ["chunks in HTTP/1.0", /400/, post("Transfer-Encoding: chunked", "0\r\n\r\n").replace("1.1", "1.0")],
  ["a carriage return in a header", /400/, get("X: a\rb")],
  ["a NUL in a header", /400/, get("X: a\0b")],
  ["a NUL in the path", /400|505/, get("X: y").replace("healthz", "healthz\0")],
  ["a header without a name", /400/, get(": y")],
  ["a header's name with a space", /400/, get("X Y: z")],
  ["no Host", /400/, "GET /healthz HTTP/1.1\r\n\r\n"],
  ["HTTP/2", /400/, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
  ["HTTP/9.9", /505/, get("X: y").replace("1.1", "9.9")],
  ["the start of a TLS handshake", /400/, "\x16\x03\x01\0\xf1\x01\0\0\xed\x03\x03"],
  ["a path of 20,000 characters", /414|431/, get("X: y").replace("healthz", "x".repeat(20_000))],
  ["a header of a megabyte", /431/, get(`X: ${"x".repeat(2 ** 20)}`)],
  ["100,000 headers", /431/, get("X: y\r\n".repeat(99_999).trim())],
];

function get(header: string): string {
  return `GET /healthz HTTP/1.1\r\nHost: x\r\n${header}\r\n\r\n`;
}

/** The bytes of a create with this header beside its Content-Type. */
export function post(header: string, body: string): string {
  return `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n${header}\r\n\r\n${body}`;
}
