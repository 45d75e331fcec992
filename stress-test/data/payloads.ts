import { expectAnswers, expectedFor, type Row } from "./reference-contract.ts";

export const payloadsFile = "pessoas-payloads.tsv";
export const termsFile = "termos-busca.tsv";

/** `rows` payloads and `terms` search terms in the contest's distribution. The same seed gives the same result. */
export function generate(seed: number, rows: number, terms: number): { rows: Row[]; terms: string[] } {
  const random = randomFrom(seed);
  return {
    rows: expectAnswers(Array.from({ length: rows }, () => payload(random))),
    terms: Array.from({ length: terms }, () => term(random)),
  };
}

/** The texts of the three files that generate.ts writes, by name. */
export function renderFiles(seed: number, rows: number, terms: number): Record<string, string> {
  const made = generate(seed, rows, terms);
  const answers = expectedFor(made.rows);
  const expected = { seed, rows, terms, answers, maximumCount: answers[201] };
  const lines = made.rows.map(({ payload, status, accept }) => `${payload}\t${status}\t${accept.join()}\n`);
  return {
    [payloadsFile]: `payload\tstatus\taccept\n${lines.join("")}`,
    [termsFile]: `t\n${made.terms.join("\n")}\n`,
    "expected.json": `${JSON.stringify(expected, null, 2)}\n`,
  };
}

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

// C# is listed twice, because it is twice as frequent in the contest's data as any other language.
const languages = [
  ..."C# C# C C++ CSS Clojure Go HTML Java Javascript Kotlin Matlab MySQL NoSQL PHP Perl".split(" "),
  ..."Postgres Python R Ruby Rust SQL Scala Swift TypeScript".split(" "),
];

export type Random = {
  /** True once in `n` calls on average. */
  oneIn(n: number): boolean;
  /** A whole number from `min` to `max`, both included. */
  int(min: number, max: number): number;
  pick<T>(from: ArrayLike<T>): T;
  text(alphabet: string, length: number): string;
};

function payload(random: Random): string {
  const apelido = random.text(letters, random.oneIn(100) ? 35 : random.int(1, 32));
  const nome = random.text(`${letters} `, random.oneIn(100) ? 120 : random.int(1, 100));
  // Spaces as in the contest's file.
  return `{"apelido": "${apelido}", "nome": "${nome}", "nascimento": ${JSON.stringify(nascimento(random))}, "stack": ${stack(random)}}`;
}

function nascimento(random: Random): string {
  if (random.oneIn(100)) return random.pick(["null", "10", '"?!?!?"', '"12-12-2000"']);
  const two = (n: number) => String(n).padStart(2, "0");
  // Months up to 13 and days up to 29: about one date in 13 does not exist, and 29 February only in leap years.
  return `${random.int(1940, 2020)}-${two(random.int(1, 13))}-${two(random.int(1, 29))}`;
}

function stack(random: Random): string {
  if (random.oneIn(100)) return random.pick(["1", '"string"', `["${"1".repeat(40)}"]`]);
  const size = random.int(-1, 26);
  if (size < 1) return "null";
  return `[${Array.from({ length: size }, () => `"${random.pick(languages)}"`).join(", ")}]`;
}

function term(random: Random): string {
  const text = random.text(`${letters} `, random.int(1, 50)).trim();
  return text === "" ? term(random) : text;
}

/** Sfc32: small, well mixed, and the same numbers on every machine. */
export function randomFrom(seed: number): Random {
  let [a, b, c, counter] = [seed | 0, 0x9e3779b9 | 0, 0x243f6a88 | 0, 1];
  const next = (): number => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return (sum >>> 0) / 2 ** 32;
  };
  for (let warmUp = 0; warmUp < 16; warmUp++) next(); // spreads the seed over all of the state
  const below = (n: number) => Math.floor(next() * n);
  return {
    oneIn: (n) => below(n) === 0,
    int: (min, max) => min + below(max - min + 1),
    pick: (from) => from[below(from.length)] as (typeof from)[number],
    text: (alphabet, length) => Array.from({ length }, () => alphabet[below(alphabet.length)]).join(""),
  };
}
