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

/** Both characters of a term; the first is 0 where there is one alone. */
const halves = (term: number) => [Math.floor(term / pair), term % pair] as const;

const byteOf = (first: number, second: number) => first * 16 + (second >> 3);
const bitOf = (second: number) => 1 << (second & 7);

/** The text of a term. */
export function textOf(term: number): string {
  const [first, second] = halves(term);
  return first === 0 ? String.fromCodePoint(second) : String.fromCodePoint(first, second);
}

/**
 * Remembers of `max` terms how many rows they have. To know too little is harmless: a forgotten term gets some rows more
 * than it needs, and so does one that another instance enters, too.
 */
export function shortTerms(max: number): ShortTerms {
  const rows = new Map<number, number>();
  // One bit for each term in ASCII: whether it has enough. Nearly all that is asked fits into these 2 KB.
  const full = new Uint8Array(128 * 16);

  function set(term: number, count: number) {
    rows.set(term, count);
    const [first, second] = halves(term);
    if (count >= enough && first < 128 && second < 128) {
      full[byteOf(first, second)] = (full[byteOf(first, second)] as number) | bitOf(second);
    }
    if (rows.size > max) rows.delete(rows.keys().next().value as number);
  }

  function wantsRow(first: number, second: number): boolean {
    const inAscii = first < 128 && second < 128;
    if (inAscii && (full[byteOf(first, second)] as number) & bitOf(second)) return false;
    return (rows.get(first * pair + second) ?? 0) < enough;
  }

  return {
    missing(fields) {
      const terms = new Set<number>();
      for (const field of fields) {
        let before = 0;
        for (let at = 0; at < field.length; ) {
          const code = field.codePointAt(at) as number;
          if (wantsRow(0, code)) terms.add(code);
          if (before > 0 && wantsRow(before, code)) terms.add(before * pair + code);
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
