/**
 * A second, independent reading of the contract: what the server must answer to a body. It shares no code with
 * the server on purpose, so that replay and tests compare two readings and not one with itself.
 */

export type Person = {
  apelido: string;
  nome: string;
  nascimento: string;
  stack?: string[] | null | undefined;
};
export type Answer = 201 | 400 | 422;

/** What a body alone deserves: 201 here means valid, whoever has the apelido. */
export function judge(body: string): { status: 400 | 422 } | { status: 201; person: Person } {
  let value: unknown;
  try {
    value = JSON.parse(body);
  } catch {
    return { status: 400 };
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) return { status: 400 };
  const { apelido, nome, nascimento, stack } = value as Record<string, unknown>;
  for (const text of [apelido, nome, nascimento]) {
    if (text !== undefined && text !== null && typeof text !== "string") return { status: 400 };
  }
  if (stack !== undefined && stack !== null) {
    if (!Array.isArray(stack)) return { status: 400 };
    for (const text of stack) if (typeof text !== "string") return { status: 400 };
  }
  const texts = (stack ?? []) as string[];
  const valid =
    fits(apelido, 32) && fits(nome, 100) && isDay(nascimento) && texts.every((text) => fits(text, 32));
  return valid ? { status: 201, person: value as Person } : { status: 422 };
}

function fits(text: unknown, max: number): boolean {
  if (typeof text !== "string") return false;
  let characters = 0;
  for (const character of text) {
    const point = character.codePointAt(0) as number;
    if (point === 0 || (point >= 0xd800 && point <= 0xdfff)) return false;
    characters++;
  }
  return characters >= 1 && characters <= max;
}

function isDay(text: unknown): boolean {
  if (typeof text !== "string" || text.length !== 10) return false;
  for (let i = 0; i < 10; i++) {
    const c = text.charAt(i);
    if (i === 4 || i === 7 ? c !== "-" : c < "0" || c > "9") return false;
  }
  const [year, month, day] = text.split("-").map(Number) as [number, number, number];
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0;
  return year >= 1 && day >= 1 && day <= days;
}

/** What each body must be answered when they are sent in this order, one by one, to an empty registry. */
export function expectedAnswers(bodies: readonly string[]): Answer[] {
  const taken = new Set<string>();
  return bodies.map((body) => {
    const verdict = judge(body);
    if (verdict.status !== 201) return verdict.status;
    if (taken.has(verdict.person.apelido)) return 422;
    taken.add(verdict.person.apelido);
    return 201;
  });
}

/** How often each answer occurs. */
export function tally(answers: readonly number[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

/** True when a person of the registry holds `term` by the contract's rule. */
export function holds(person: Person, term: string): boolean {
  const wanted = term.toLowerCase();
  return [person.apelido, person.nome, ...(person.stack ?? [])].some((text) =>
    text.toLowerCase().includes(wanted),
  );
}
