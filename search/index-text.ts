/**
 * The text of a person for the GIN index. A field contains a term exactly when the text contains the encoded term.
 *
 * Trigrams have only letters and digits, and the database's C library decides what is a letter. So a text keeps the
 * letters below, on which all C libraries agree, and encodes other characters in CJK Extension A: ASCII in one letter,
 * others in a lead and a trail from separate ranges, so no term starts or ends within a pair. U+0001 separates the
 * fields.
 */
const border = "\x01";
const lead = 0x3400; // plus the upper bits of a code point, up to 0x43f
const trail = lead + 0x440; // plus the lower ten bits
const ascii = trail + 0x400; // plus one of 0x80 characters
// Letters since Unicode 3.2 that no locale lower-cases. Capitals in between do not occur.
const kept = [
  "0-9a-z",
  "\u00df-\u00f6\u00f8-\u017f\u1ea0-\u1ef9", // Latin: Europe, Vietnam
  "\u03ac-\u03ce\u0430-\u0481\u048a-\u04bf", // Greek, Cyrillic
  "\u05d0-\u05ea\u0621-\u063a\u0641-\u064a", // Hebrew, Arabic
  "\u3041-\u3096\u30a1-\u30fa\u30fc-\u30fe\u4e00-\u9fa5\uac00-\ud7a3", // kana, Han, Hangul
].join("");
const outside = new RegExp(`[^${kept}]`, "gu");

// U+0000 separates the fields before encoding.
const asciiLetters = Array.from({ length: 0x80 }, (_, code) =>
  code ? String.fromCharCode(ascii + code) : border,
);

function asLetters(character: string): string {
  const code = character.codePointAt(0) as number;
  return asciiLetters[code] ?? String.fromCharCode(lead + (code >> 10), trail + (code & 0x3ff));
}

export const encode = (text: string): string => text.replace(outside, asLetters);

/** `text`: the value of `busca`, without elements that `isCommon`. */
export function searchable(
  { apelido, nome, stack }: { apelido: string; nome: string; stack: string[] | null },
  isCommon: (element: string) => boolean = () => false,
): { fields: string[]; text: string } {
  const elements = new Set<string>();
  for (const element of stack ?? []) if (!isCommon(element)) elements.add(element.toLowerCase());
  const fields = [apelido.toLowerCase(), nome.toLowerCase(), ...elements];
  return { fields, text: encode(fields.join("\0")) };
}

// The longest field has 100 characters, and lower-casing at most doubles one (İ becomes i̇).
const longestMatch = 2 * 100 * 2;

/** In lower case. Undefined for a term that no person can have. */
export function lowerCased(term: string): string | undefined {
  return term.includes("\0") || term.length > longestMatch ? undefined : term.toLowerCase();
}

/** Too short for a trigram. */
export const isShort = (term: string): boolean => /^..?$/su.test(term);
