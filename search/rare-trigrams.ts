const sampleSize = 2000;
const wholeUpTo = 8; // letters
const maxTrigrams = 6;
const rareShare = 1e-4; // of all persons, if trigrams were independent

/** The three code units at `at`, as one number. */
const trigramAt = (text: string, at: number) =>
  (text.charCodeAt(at) * 0x10000 + text.charCodeAt(at + 1)) * 0x10000 + text.charCodeAt(at + 2);

/**
 * GIN reads the rows of every trigram in a pattern, however frequent. So the pattern of a long term has only its
 * rarest trigrams, in their order. An incomplete sample costs time, never a match.
 */
export function trigramSample() {
  let persons = 0;
  let counts = new Map<number, number>();

  function countsIn(term: string): number[] {
    const found: number[] = [];
    for (let at = 0; at + 3 <= term.length; at++) found.push(counts.get(trigramAt(term, at)) ?? 0.5);
    return found;
  }

  return {
    learn(text: string) {
      persons++;
      const trigrams = new Set<number>();
      for (let at = 0; at + 3 <= text.length; at++) trigrams.add(trigramAt(text, at));
      for (const trigram of trigrams) counts.set(trigram, (counts.get(trigram) ?? 0) + 1);
      if (persons < sampleSize) return;
      // Halving lets old persons count less and rare trigrams go.
      persons >>= 1;
      counts = new Map(
        [...counts].map(([trigram, n]) => [trigram, n >> 1] as const).filter(([, n]) => n > 0),
      );
    },
    /** A LIKE pattern that every text with `term` matches, and few others. */
    pattern(term: string): string {
      if (term.length <= wholeUpTo) return `%${term}%`;
      const remaining = countsIn(term);
      const chosen: number[] = [];
      for (let share = 1; share >= rareShare && chosen.length < maxTrigrams; ) {
        const rarest = remaining.indexOf(Math.min(...remaining));
        const count = remaining[rarest] as number;
        if (count === Number.POSITIVE_INFINITY) break;
        chosen.push(rarest);
        share *= count / (persons + 1);
        remaining.fill(Number.POSITIVE_INFINITY, Math.max(0, rarest - 2), rarest + 3); // overlapping trigrams add little
      }
      const trigrams = chosen.sort((a, b) => a - b).map((at) => term.slice(at, at + 3));
      return `%${trigrams.join("%")}%`;
    },
  };
}
