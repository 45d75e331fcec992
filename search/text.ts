/**
 * How the index knows a person: one text holds all searchable fields, and a term is in a field exactly when the term, written
 * the same way, is in the text.
 *
 * A trigram has letters and digits alone, and which characters those are depends on the C library of the database. So a
 * text consists of the ones below that all C libraries agree on. Every other character is written as letters that nobody
 * uses: those of CJK Extension A from U+3400 on. ASCII takes one of them, all else two: a lead and a trail, from ranges of
 * their own, so that no term can begin or end within a pair. U+0001 stands between the fields, where no term matches.
 */
const border = "\x01";
const lead = 0x3400; // and the upper bits of a code point, of which there are 0x440
const trail = lead + 0x440; // and the lower ten
const ascii = trail + 0x400; // and one of 0x80 characters
// Letters since Unicode 3.2 that no locale lower-cases. Capitals in between do not occur: the text is in lower case.
const kept = [
  "0-9a-z",
  "\u00df-\u00f6\u00f8-\u017f\u1ea0-\u1ef9", // Latin: Europe, Vietnam
  "\u03ac-\u03ce\u0430-\u0481\u048a-\u04bf", // Greek, Cyrillic
  "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a", // Hebrew, Arabic
  "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u4e00-\u9fa5\uac00-\ud7a3", // kana, Han, Hangul
].join("");
const outside = new RegExp(`[^${kept}]`, "gu");

// U+0000 is in no field: it separates them until they are encoded, all at once.
const asciiLetters = Array.from({ length: 0x80 }, (_, code) =>
  code ? String.fromCharCode(ascii + code) : border,
);

function asLetters(character: string): string {
  const code = character.codePointAt(0) as number;
  return asciiLetters[code] ?? String.fromCharCode(lead + (code >> 10), trail + (code & 0x3ff));
}

/** What is in lower case, as `busca` has it. */
export const encode = (text: string): string => text.replace(outside, asLetters);

/** The fields that are searched, in lower case, and their text for the column `busca`. Elements that `isCommon` are left out. */
export function searchable(
  { apelido, nome, stack }: { apelido: string; nome: string; stack: string[] | null },
  isCommon: (element: string) => boolean = () => false,
): { fields: string[]; text: string } {
  const elements = new Set<string>();
  for (const element of stack ?? []) if (!isCommon(element)) elements.add(element.toLowerCase());
  const fields = [apelido.toLowerCase(), nome.toLowerCase(), ...elements];
  return { fields, text: encode(fields.join("\0")) };
}

// The longest field has 100 characters, and lower-casing at most doubles a character (İ becomes i̇).
const longestMatch = 2 * 100 * 2;

/** A term in lower case. Undefined when no storable person can hold it. */
export function lowerCased(term: string): string | undefined {
  return term.includes("\0") || term.length > longestMatch ? undefined : term.toLowerCase();
}

/** Whether a term in lower case has one or two characters: too few for a trigram. */
export const isShort = (term: string): boolean => /^..?$/su.test(term);
