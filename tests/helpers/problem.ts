import { expect } from "bun:test";
import type { Problem } from "./requests.ts";

/** Checks that the answer is an RFC 9457 problem with this status, and returns its body. */
export async function problem(response: Response, status: number): Promise<Problem> {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const body = (await response.json()) as Problem;
  expect(body.type).toBe("about:blank");
  expect([body.title, body.detail].map((text) => typeof text)).toEqual(["string", "string"]);
  expect([response.status, body.status]).toEqual([status, status]);
  return body;
}
