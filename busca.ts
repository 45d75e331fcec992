/**
 * How a person is found: one text holds all searchable fields, and one LIKE pattern finds a term in it.
 *
 * The fields are joined by U+0001. A term must never match across that border, even if it holds U+0001
 * itself, so U+0001 to U+0004 inside of fields and terms are written as U+0002 U+0003… U+0004: a border
 * stands alone, and such a code has a first and a last character of its own, so no term can match a part.
 */
const border = "\x01";
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are the reserved ones
const reserved = /[\x01-\x04]/g;

function literal(text: string): string {
  return text.toLowerCase().replace(reserved, (c) => `\x02${"\x03".repeat(c.charCodeAt(0))}\x04`);
}

// An entry of the index has to fit into a page of Postgres: 2,700 trigrams. So many elements have at most 2,400.
const elementsPerText = 32;

/** The texts to search in: the first for the column `busca`, and more of them where the stack is long. */
export function searchTexts(pessoa: { apelido: string; nome: string; stack: string[] | null }) {
  const { apelido, nome, stack } = pessoa;
  const join = (fields: string[]) => fields.map(literal).join(border);
  const more: string[] = [];
  for (let at = elementsPerText; at < (stack?.length ?? 0); at += elementsPerText) {
    more.push(join((stack as string[]).slice(at, at + elementsPerText)));
  }
  return { first: join([apelido, nome, ...(stack?.slice(0, elementsPerText) ?? [])]), more };
}

/** Whether there is more than one text to search in. */
export function isLong({ stack }: { stack: string[] | null }): boolean {
  return stack !== null && stack.length > elementsPerText;
}

// The longest field has 100 characters, and lower-casing at most doubles a character (İ becomes i̇).
const longestMatch = 2 * 100 * 2;

/**
 * The LIKE pattern that matches exactly the texts of persons who hold `term`, ignoring case,
 * or undefined when no storable person can.
 */
export function likePattern(term: string): string | undefined {
  if (term.includes("\0") || term.length > longestMatch) return undefined;
  return `%${literal(term).replace(/[\\%_]/g, "\\$&")}%`;
}
