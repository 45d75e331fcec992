/** Persons that a search answers with, at most. Any of those who are found are an answer. */
export const enough = 50;

/** Words, and in how many texts each was entered: up to `enough`. */
export type Common = {
  /** One more text has `word`. */
  add(word: string): void;
  /** Whether enough texts have it. */
  has(word: string): boolean;
};

/** Remembers `max` words. Forgetting one only makes a few texts longer. */
export function common(max: number): Common {
  const texts = new Map<string, number>();
  return {
    has: (word) => (texts.get(word) ?? 0) >= enough,
    add(word) {
      texts.set(word, (texts.get(word) ?? 0) + 1);
      if (texts.size > max) texts.delete(texts.keys().next().value as string);
    },
  };
}
