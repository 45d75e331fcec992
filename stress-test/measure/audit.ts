import { isDeepStrictEqual } from "node:util";
import { inParallel } from "../../tools/in-parallel.ts";
import type { Pessoa } from "../data/reference-contract.ts";

/** A person that got 201 with this Location, and the id in it. */
export type Stored = Pessoa & { id: string; location: string };

/** Whether `got` has exactly the members of the person, with the sent values. The id is compared without case. */
export function isSame(
  got: unknown,
  { id, apelido, nome, nascimento, stack }: Omit<Stored, "location">,
): boolean {
  const { id: gotId, ...others } = Object(got);
  return (
    typeof gotId === "string" &&
    gotId.toLowerCase() === id.toLowerCase() &&
    isDeepStrictEqual(others, { apelido, nome, nascimento, stack })
  );
}

/** Reads all persons back. Adds a sentence to `problems` for each that is lost, changed or unreadable. */
export async function readBack(baseUrl: string, persons: readonly Stored[], problems: string[]) {
  const found = { persons: persons.length, lost: 0, changed: 0, unreadable: 0 };
  await inParallel(16, "reading persons back", persons, async (person) => {
    const { status, body } = await get(baseUrl, person.location);
    if (status === 404) {
      found.lost++;
      problems.push(`lost: "${person.apelido}" got 201, ${person.location} now answers 404`);
    } else if (status !== 200) {
      found.unreadable++;
      problems.push(`unreadable: ${person.location} answers ${status || body}`);
    } else if (!isSame(parse(body), person)) {
      found.changed++;
      problems.push(`changed: "${person.apelido}" is now ${brief(body)}`);
    }
  });
  return found;
}

/** At most `n` of the items, evenly spread over all of them. */
export function spread<T>(items: readonly T[], n: number): T[] {
  if (items.length <= n) return [...items];
  return Array.from({ length: n }, (_, index) => items[Math.floor((index * items.length) / n)] as T);
}

/**
 * The count when three polls in a row agree, because writes may lag behind the answers; else the last of 60 polls.
 * Throws if an answer is not a number.
 */
export async function settledCount(baseUrl: string, pollMs: number): Promise<number> {
  let [last, still] = [-1, 0];
  for (let polls = 0; polls < 60 && still < 2; polls++) {
    const { status, body } = await get(baseUrl, "/contagem-pessoas");
    if (status !== 200 || !/^[0-9]+$/.test(body.trim())) {
      throw new Error(`GET /contagem-pessoas answers ${status || ""} ${brief(body)}`);
    }
    still = Number(body) === last ? still + 1 : 0;
    last = Number(body);
    if (still < 2) await Bun.sleep(pollMs);
  }
  return last;
}

/** Status and body; without an answer status 0 and the reason. Up to three retries after no answer or a 503. */
export async function get(baseUrl: string, path: string): Promise<{ status: number; body: string }> {
  for (let attempt = 1; ; attempt++) {
    let answer = { status: 0, body: "" };
    try {
      const response = await fetch(new URL(path, baseUrl), { signal: AbortSignal.timeout(20_000) });
      answer = { status: response.status, body: await response.text() };
    } catch (error) {
      answer.body = error instanceof Error ? error.message : String(error);
    }
    if ((answer.status !== 0 && answer.status !== 503) || attempt === 4) return answer;
    await Bun.sleep(500 * attempt);
  }
}

/** The JSON value; undefined if `text` is not JSON. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The first 120 characters. */
export function brief(text: string): string {
  return text.length <= 120 ? text : `${text.slice(0, 120)}...`;
}
