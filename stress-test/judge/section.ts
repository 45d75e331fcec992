/** `lenient` and `strict`: right, where the instructions leave room. */
export type Outcome = "right" | "lenient" | "strict" | "wrong" | "not judged";
export type Evidence = { rule: string; outcome: Outcome; request: string; expected: string; got: string };
/** `figure`: what was found, in a few words. `rule`: what was judged, in a sentence. */
export type Section = {
  verdict: "right" | "wrong" | "not judged";
  figure: string;
  rule: string;
  evidence: Evidence[];
};

/** It is wrong where one outcome is. */
export function sectionOf(rule: string, evidence: Evidence[], figure: string): Section {
  const verdict = evidence.some(({ outcome }) => outcome === "wrong") ? "wrong" : "right";
  return { verdict, figure, rule, evidence };
}
