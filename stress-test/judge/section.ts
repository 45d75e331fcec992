/** `lenient` and `strict`: right, where the instructions leave room. */
export type Outcome = "right" | "lenient" | "strict" | "wrong" | "not judged";
export type Evidence = { rule: string; outcome: Outcome; request: string; expected: string; got: string };
/** `figure`: what was found, in a few words. `rule`: what was judged, in a sentence. */
export type Section = ReturnType<typeof sectionOf>;

/** It is wrong where one outcome is, and not judged without evidence. */
export function sectionOf(rule: string, evidence: Evidence[], figure: string) {
  const isWrong = evidence.some(({ outcome }) => outcome === "wrong");
  const verdict = evidence.length === 0 ? "not judged" : isWrong ? "wrong" : "right";
  return { verdict, figure, rule, evidence } as const;
}
