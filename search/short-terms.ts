import { enough } from "./common.ts";

/** Terms of one and two characters, and how many rows each has in the table `curtos`. */
export type ShortTerms = {
  /**
   * The terms in `fields`, in lower case, that want another row; among them the empty one, which tells that there is a person in
   * the index. `isAnswered`: whether enough persons in memory have this term, so that it needs no rows.
   */
  wanting(fields: string[], isAnswered: (term: string) => boolean): string[];
  /** These have got one row each. */
  added(terms: string[]): void;
  /** These have enough. */
  full(terms: string[]): void;
};

const pair = 2 ** 21; // more than there are code points
const asciiEnd = 0x80;

/** A term as a number: two code points, the first of them 0 where there is one alone, and 0 for the empty term. */
function numberOf(term: string): number {
  const [first = 0, second] = Array.from(term, (character) => character.codePointAt(0) as number);
  return second === undefined ? first : first * pair + second;
}

function textOf(term: number): string {
  if (term === 0) return "";
  const [first, second] = [Math.floor(term / pair), term % pair];
  return first === 0 ? String.fromCodePoint(second) : String.fromCodePoint(first, second);
}

/**
 * Remembers `max` terms. To know too little is harmless: a forgotten term gets some rows more than it needs, and so does one
 * that another instance enters, too. Only terms in ASCII are looked up in memory, each once: a term that few have costs a scan
 * of all, and one client can send any number of other ones.
 */
export function shortTerms(max: number): ShortTerms {
  const rows = new Map<number, number>();

  function set(term: number, count: number) {
    rows.set(term, count);
    if (rows.size > max) rows.delete(rows.keys().next().value as number);
  }

  function wants(term: number, isAscii: boolean, isAnswered: (term: string) => boolean): boolean {
    const count = rows.get(term);
    if (count !== undefined) return count < enough;
    if (!isAscii || term === 0) return true;
    const answered = isAnswered(textOf(term));
    set(term, answered ? enough : 0);
    return !answered;
  }

  return {
    wanting(fields, isAnswered) {
      const terms = new Set<number>();
      const enter = (term: number, isAscii: boolean) => {
        if (!terms.has(term) && wants(term, isAscii, isAnswered)) terms.add(term);
      };
      enter(0, false);
      for (const field of fields) {
        let before = 0;
        for (let at = 0; at < field.length; ) {
          const code = field.codePointAt(at) as number;
          enter(code, code < asciiEnd);
          if (before > 0) enter(before * pair + code, code < asciiEnd && before < asciiEnd);
          before = code;
          at += code > 0xffff ? 2 : 1;
        }
      }
      return Array.from(terms, textOf);
    },
    added(terms) {
      for (const term of terms.map(numberOf)) set(term, (rows.get(term) ?? 0) + 1);
    },
    full(terms) {
      for (const term of terms) set(numberOf(term), enough);
    },
  };
}
