/** So many persons answer a search; anybody beyond them need not be found. */
export const enough = 50;

/** Terms of one and two characters, each as a number, and how many rows each has. */
export type ShortTerms = {
  /** The terms in `fields`, in lower case, that want another row. */
  missing(fields: string[]): number[];
  /** These have got one each. */
  added(terms: number[]): void;
  /** These have enough. */
  full(terms: string[]): void;
};

const pair = 2 ** 21; // more than there are code points

/** The text of a term. */
export function textOf(term: number): string {
  const [first, second] = [Math.floor(term / pair), term % pair];
  return first === 0 ? String.fromCodePoint(second) : String.fromCodePoint(first, second);
}

/**
 * Remembers of `max` terms how many rows they have. To know too little is harmless: a forgotten term gets some rows more
 * than it needs, and so does one that another instance enters, too.
 */
export function shortTerms(max: number): ShortTerms {
  const rows = new Map<number, number>();

  function set(term: number, count: number) {
    rows.set(term, count);
    if (rows.size > max) rows.delete(rows.keys().next().value as number);
  }

  return {
    missing(fields) {
      const terms = new Set<number>();
      const check = (term: number) => {
        if ((rows.get(term) ?? 0) < enough) terms.add(term);
      };
      for (const field of fields) {
        let before = 0;
        for (let at = 0; at < field.length; ) {
          const code = field.codePointAt(at) as number;
          check(code);
          if (before > 0) check(before * pair + code);
          before = code;
          at += code > 0xffff ? 2 : 1;
        }
      }
      return [...terms];
    },
    added(terms) {
      for (const term of terms) set(term, (rows.get(term) ?? 0) + 1);
    },
    full(terms) {
      for (const term of terms) {
        const [first = 0, second] = Array.from(term, (character) => character.codePointAt(0) as number);
        set(second === undefined ? first : first * pair + second, enough);
      }
    },
  };
}
