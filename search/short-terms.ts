import { counter } from "./bounded-counter.ts";
import { maxFound } from "./limits.ts";

type ShortTerms = {
  /**
   * The short terms in `fields`, in lower case, that need a row for this person. One is the empty term, whose rows
   * show that the index has persons.
   */
  needed(fields: string[], isAnsweredByMemory: (term: string) => boolean): string[];
  /** Each of these terms has one more row. */
  stored(terms: string[]): void;
  /** These terms have all their rows. */
  complete(terms: string[]): void;
};

const pair = 2 ** 21; // above every code point
const asciiEnd = 0x80;

/** Two code points as a number, the first 0 if there is only one: half the CPU of strings. */
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
 * Counts the rows of `max` terms. An evicted term only gets more rows, as do two instances at once. Only ASCII terms are
 * looked up in memory, because a lookup may scan all texts, and these terms are few.
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
