import { expect, test } from "bun:test";
import { type Answer, headerOf, readAnswer } from "./http.ts";

const plain = 'HTTP/1.1 201 Created\r\nLocation: /pessoas/1\r\nContent-Length: 9\r\n\r\n{"id": 1}';
const chunked =
  "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" +
  `5\r\n[1,\r\n\r\n1a;extension=x\r\n${"2".repeat(26)}\r\n0\r\n\r\n`;

test.each([
  ["with its length", plain, [201, "/pessoas/1"], '{"id": 1}'],
  ["in chunks", chunked, [200, undefined], `[1,\r\n${"2".repeat(26)}`],
  ["empty", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", [400, undefined], ""],
])("an answer %s is read only when it is complete", (_, text, expected, body) => {
  const bytes = Buffer.from(text);
  for (let end = 0; end < bytes.length; end++) expect(readAnswer(bytes.subarray(0, end))).toBeUndefined();
  const answer = readAnswer(bytes) as Answer;
  expect([answer.status, headerOf(answer, "location")]).toEqual(expected);
  expect([answer.bytes, answer.body.toString()]).toEqual([bytes.length, body]);
  expect(readAnswer(Buffer.concat([bytes, Buffer.from("HTTP")]))?.bytes).toBe(bytes.length);
});

test.each([
  ["of another protocol", "SSH-2.0-OpenSSH\r\n\r\n"],
  ["without a length", "HTTP/1.1 200 OK\r\n\r\nall until it hangs up"],
  ["with a chunk without a size", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nno\r\n"],
])("an answer %s is refused", (_, text) => {
  expect(() => readAnswer(Buffer.from(text))).toThrow(Error);
});
