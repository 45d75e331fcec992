import { enough } from "./curtos.ts";

/** Elements of stacks, in lower case, and how many stored persons have each in their search text. */
export type CommonElements = {
  /** Whether enough have `element`: whatever is searched in it, they are an answer. */
  has(element: string): boolean;
  /** A person is stored whose search text has these. */
  stored(elements: Iterable<string>): void;
};

/**
 * Most stacks are made of the same few words. Once enough persons are found by one of them, the search texts of all later
 * ones do without it, for any 50 are an answer and nobody is ever removed. It remembers `max` elements: to know too little
 * is harmless, a forgotten one is in some texts more.
 */
export function commonElements(max: number): CommonElements {
  const persons = new Map<string, number>();
  return {
    has: (element) => (persons.get(element) ?? 0) >= enough,
    stored(elements) {
      for (const element of elements) persons.set(element, (persons.get(element) ?? 0) + 1);
      for (const [oldest] of persons) {
        if (persons.size <= max) break;
        persons.delete(oldest);
      }
    },
  };
}
