/** How rare which trigrams are, from a sample of the persons. */
export type Rarity = {
  /** Takes a search text into the sample. */
  learn(text: string): void;
  /** A LIKE pattern that all texts with `term` match, and hardly any other: its rarest trigrams, in their order. */
  pattern(term: string): string;
};

const sampleSize = 2000;
const wholeUpTo = 8; // letters
const mostTrigrams = 6;
const fewEnough = 1e-4; // of all persons hold all of the trigrams, were these independent

/** The three code units from `at` on, as one number. */
const trigramAt = (text: string, at: number) =>
  (text.charCodeAt(at) * 0x10000 + text.charCodeAt(at + 1)) * 0x10000 + text.charCodeAt(at + 2);

/**
 * A GIN index reads the persons of each trigram it is asked for, also of those that half of all persons hold; a few rare
 * ones tell as much. To know too little costs time alone: the pattern only chooses whom to look at.
 */
export function rarity(): Rarity {
  let persons = 0;
  let holders = new Map<number, number>();

  /** Of each trigram of `term`. */
  function holdersOf(term: string): number[] {
    const counts: number[] = [];
    for (let at = 0; at + 3 <= term.length; at++) counts.push(holders.get(trigramAt(term, at)) ?? 0.5);
    return counts;
  }

  return {
    learn(text) {
      persons++;
      const trigrams = new Set<number>();
      for (let at = 0; at + 3 <= text.length; at++) trigrams.add(trigramAt(text, at));
      for (const trigram of trigrams) holders.set(trigram, (holders.get(trigram) ?? 0) + 1);
      if (persons < sampleSize) return;
      // What was learned long ago counts less and less, and what is seldom seen is forgotten.
      persons >>= 1;
      holders = new Map(
        [...holders].map(([trigram, n]) => [trigram, n >> 1] as const).filter(([, n]) => n > 0),
      );
    },
    pattern(term) {
      if (term.length <= wholeUpTo) return `%${term}%`;
      const counts = holdersOf(term);
      const chosen: number[] = [];
      for (let expected = 1; expected >= fewEnough && chosen.length < mostTrigrams; ) {
        const rarest = counts.indexOf(Math.min(...counts));
        const count = counts[rarest] as number;
        if (count === Number.POSITIVE_INFINITY) break;
        chosen.push(rarest);
        expected *= count / (persons + 1);
        // Those that overlap it tell little that is new.
        counts.fill(Number.POSITIVE_INFINITY, Math.max(0, rarest - 2), rarest + 3);
      }
      const trigrams = chosen.sort((a, b) => a - b).map((at) => term.slice(at, at + 3));
      return `%${trigrams.join("%")}%`;
    },
  };
}
