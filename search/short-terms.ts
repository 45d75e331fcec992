import { counter } from "./counter.ts";
import { maxFound } from "./limits.ts";

/** Which terms of one and two characters need another row in the table of short terms. */
export type ShortTerms = {
  /**
   * The short terms in `fields`, which are in lower case, that need a row for this person. One of them is the empty term, whose
   * rows say that the index has persons. `isAnsweredByMemory`: whether the memory alone has a full answer to a term.
   */
  needed(fields: string[], isAnsweredByMemory: (term: string) => boolean): string[];
  /** Each of these terms has one more row. */
  stored(terms: string[]): void;
  /** These terms have all the rows they need. */
  complete(terms: string[]): void;
};

const pair = 2 ** 21; // more than there are code points
const asciiEnd = 0x80;

/** A term as a number, for half of the CPU of strings: two code points, the first one 0 if there is only one. */
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
 * Remembers the rows of `max` terms. A forgotten term gets more rows than it needs, and so does a term that two instances
 * store. Only terms in ASCII are looked up in memory, each once: there are few of them, and a lookup may scan all texts.
 */
export function shortTerms(max: number): ShortTerms {
  const rows = counter<number>(max);

  function needsRow(term: number, isAscii: boolean, isAnsweredByMemory: (term: string) => boolean): boolean {
    if (rows.get(term) === undefined && isAscii && term !== 0) {
      rows.set(term, isAnsweredByMemory(textOf(term)) ? maxFound : 0);
    }
    return !rows.isFull(term);
  }

  return {
    needed(fields, isAnsweredByMemory) {
      const terms = new Set<number>();
      const enter = (term: number, isAscii: boolean) => {
        if (!terms.has(term) && needsRow(term, isAscii, isAnsweredByMemory)) terms.add(term);
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
    stored(terms) {
      for (const term of terms) rows.add(numberOf(term));
    },
    complete(terms) {
      for (const term of terms) rows.set(numberOf(term), maxFound);
    },
  };
}
