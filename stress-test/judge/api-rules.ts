// The contest's rules, as data: what is sent, and which answers are right. Independent of the product's code.
import { holds, type Pessoa } from "../data/reference-contract.ts";
import { isSame, parse, type Stored } from "../measure/audit.ts";
import type { Outcome } from "./section.ts";

const expectations = { valid: "201, and the person as sent", invalid: "422 or 400", open: "201, 422 or 400" };
/** `open`: the instructions leave room. A create may then get 201 (lenient), or 400 or 422 (strict). */
type Ruling = keyof typeof expectations;

const u = "unique"; // stands for six characters that no other person has
const n = (times: number, letter = "a") => letter.repeat(times);

/** Values of one member of an otherwise valid person (undefined: left out), or whole bodies. */
const creates: [group: string, Ruling, member: string, values: unknown[]][] = [
  ["lengths", "valid", "apelido", [u + n(26), u + n(26, "ã"), u + n(26, "李")]],
  ["lengths", "invalid", "apelido", [u + n(27), u + n(27, "ã")]],
  ["lengths", "open", "apelido", ["", u + n(26, "🦜")]],
  ["lengths", "valid", "nome", ["a", n(100), n(100, "é")]],
  ["lengths", "invalid", "nome", [n(101), n(101, "é")]],
  ["lengths", "open", "nome", [""]],
  ["lengths", "valid", "stack", [[n(32)], [n(32, "ã")]]],
  ["lengths", "valid", "stack", [Array.from({ length: 40 }, (_, nth) => `lang${nth}`)]],
  ["lengths", "invalid", "stack", [[n(33)], ["Go", n(33, "ã")]]],
  ["lengths", "open", "stack", [["Go", ""]]],
  ["dates", "valid", "nascimento", ["2000-02-29", "1999-12-31"]],
  ["dates", "invalid", "nascimento", ["2023-02-30", "1900-02-29", "2021-04-31", "2021-13-01", "2021-00-10"]],
  ["dates", "invalid", "nascimento", ["2021-01-00", "2021-01-32", "23-09-1985", "1985/09/23", "19850923"]],
  ["dates", "invalid", "nascimento", ["1985-9-3", "1985-09-23T00:00:00Z", "?!?!?", ""]],
  ["dates", "open", "nascimento", ["0001-01-01", " 1985-09-23"]],
  ["types", "invalid", "apelido", [1, [u]]],
  ["types", "invalid", "nome", [1, true, {}]],
  ["types", "invalid", "nascimento", [19850923]],
  ["types", "invalid", "stack", ["PHP", 1, {}, [1, "PHP"], ["PHP", null], [["PHP"]]]],
  ["types", "invalid", "body", ["[]", '"Ana"', "null", "", '{"nome": "Ana"', "apelido=ana&nome=Ana"]],
  ["a member that is not asked for", "open", "idade", [30]],
  ["null and missing", "invalid", "apelido", [null, undefined]],
  ["null and missing", "invalid", "nome", [null, undefined]],
  ["null and missing", "invalid", "nascimento", [null, undefined]],
  ["null and missing", "invalid", "body", ["{}"]],
  ["null and missing", "valid", "stack", [null, undefined, []]],
  ["as sent", "valid", "nome", ['Ana "Q" \\o/', "Ωmega 李小龍 🦜", " Ana "]],
  ["as sent", "open", "nome", ["\u00e9 e\u0301"]],
  ["as sent", "valid", "stack", [["Go", "Bun", "Go"]]],
  ["as sent", "valid", "stack", [["C# e F#", "a,b", " x "]]],
  ["as sent", "valid", "stack", [["d'água", "{a}", "Ünal 🦜"]]],
  ["duplicates", "valid", "apelido", ["Duplo0"]],
  ["duplicates", "invalid", "apelido", ["Duplo0"]],
  ["duplicates", "invalid", "body", ['{"apelido":"Duplo0","nome":"Bia","nascimento":"1990-01-01"}']],
  ["duplicates", "open", "apelido", ["duplo0"]],
  ["duplicates", "valid", "apelido", ["Dúplo0"]],
  // Last: in some entries one of these takes others with it, which the count shows.
  ["what a database may not hold", "valid", "nome", ["Person before"]],
  ["what a database may not hold", "open", "nome", ["a\0b", "a\ud800b"]],
  ["what a database may not hold", "valid", "nome", ["Person after"]],
];

let serial = 0;

/** Creates, in this order. */
export const createRules = creates.flatMap(([group, ruling, member, values]) =>
  values.map((value) => {
    const person = { apelido: u, nome: "Ana Barbosa", nascimento: "1985-09-23", stack: ["C#", "Node"] };
    const body = member === "body" ? String(value) : JSON.stringify({ ...person, [member]: value });
    const payload = body.replaceAll(u, `r${String(serial++).padStart(5, "0")}`);
    const text = value === undefined ? "missing" : shortened(JSON.stringify(value));
    return { rule: `${group}: ${member} ${text}`, ruling, payload, expected: expectations[ruling] };
  }),
);

/** The text with many equal characters as a×26. */
export function shortened(text: string): string {
  return text.replaceAll(/(.)\1{9,}/gu, (run, letter) => `${letter}×${[...run].length}`);
}

const pessoa = (apelido: string, nome: string, stack: string[] | null): Pessoa => {
  return { apelido, nome, nascimento: "1985-09-23", stack };
};
/** Persons to search for. Nobody else has their digits. */
export const searched: Pessoa[] = [
  pessoa("s1 maçã7", "josé zebu7", ["elixir7", "c# e f#7"]),
  pessoa("s2 cem7%", "sub_linha7", ["barra\\7", "[x]7(y)*7"]),
  pessoa("s3 fim7", "8começo", ["um9", "9dois", "três7"]),
  pessoa("s4 ÉGUA7", "ÃO7 MAIÚSCULA", ["Go"]),
  pessoa("s5 aspas7", 'd\'água7 "q"', []),
  pessoa("s6 nulo7", "sem stack7", null),
  pessoa("s7 lista7", "com vírgula7", ["a,b7", "{c}"]),
  ...Array.from({ length: 55 }, (_, nth) => pessoa(`m${nth} 7`, "Muitos7", ["Go"])),
];

/** In the open ones the instructions leave it open whether the term finds more than those who hold it as it is. */
const searches: [group: string, Ruling, terms: string[]][] = [
  ["search", "valid", ["zebu7", "s1 maçã7", "elixir7", "lixir7", "c# e f#7", "ninguem7", "uitos7"]],
  ["search in other letters", "valid", ["maiúscula", "ZEBU7", "égua7", "MAÇÃ7", "MAIÚSCULA"]],
  ["search without accents", "open", ["maca7"]],
  ["search, + for a blank", "open", ["c#+e+f#7"]],
  ["search, literally", "valid", ["%", "7%", "_", "b_l", "\\", "[x", "(y", "*7", "d'água7", '"q"', ".", "^"]],
  // In both orders: apelido, nome, stack, and nome, apelido, stack.
  ["search across fields", "valid", ["fim78", "fim7 8", "fim7,8", "começoum9", "começo um9", "começo,um9"]],
  ["search across fields", "valid", ["começos3", "começo s3", "começo,s3", "fim7um9"]],
  ["search across fields", "valid", ["fim7 um9", "fim7,um9"]],
  ["search across elements", "valid", ["um99dois", "um9 9dois", "um9,9dois", 'um9","9dois']],
];

type ReadRule = Record<"rule" | "path" | "expected", string> & {
  judge(status: number, body: string): Outcome;
};

const status = (rule: string, path: string, right: number, ...lenient: number[]): ReadRule => ({
  rule,
  path,
  expected: `${right}`,
  judge: (got) => (got === right ? "right" : lenient.includes(got) ? "lenient" : "wrong"),
});

export const readRules: ReadRule[] = [
  ...searches.flatMap(([group, ruling, terms]) => terms.map((term) => searchRule(group, ruling, term))),
  ...["elixir7", "aspas7", "nulo7", "lista7"].map(asSentRule),
  status("search: no t", "/pessoas", 400),
  status("search: t is empty", "/pessoas?t=", 400, 200),
  status("search: another parameter than t", "/pessoas?termo=ana", 400),
  status("read: nobody's id", "/pessoas/00000000-0000-4000-8000-000000000000", 404),
  status("read: no UUID", "/pessoas/not-a-uuid", 404, 400, 422),
  status("read: a number", "/pessoas/1", 404, 400, 422),
  {
    rule: "count: digits alone",
    path: "/contagem-pessoas",
    expected: "a number",
    judge: (_, body) => (/^\d+$/.test(body) ? "right" : /^\s*\d+\s*$/.test(body) ? "lenient" : "wrong"),
  },
];

/** The path of a search. */
export function pathOf(term: string): string {
  return `/pessoas?t=${encodeURIComponent(term).replaceAll("%2B", "+")}`;
}

function searchRule(group: string, ruling: Ruling, term: string): ReadRule {
  const most = 50;
  const wanted = searched.filter((person) => holds(person, term)).map(({ apelido }) => apelido);
  return {
    rule: `${group}: ${term}`,
    path: pathOf(term),
    expected: wanted.length < most ? wanted.join(", ") || "nobody" : `${most} persons`,
    judge(status, body) {
      const hits = hitsOf(body);
      if (status !== 200 || !hits) return "wrong";
      const found = new Set(hits.map(({ apelido }) => apelido));
      const right = wanted.filter((apelido) => found.has(apelido)).length;
      if (right < Math.min(wanted.length, most)) return "wrong";
      if (found.size > right) return ruling === "open" ? "lenient" : "wrong";
      return hits.length > most ? "lenient" : ruling === "open" ? "strict" : "right";
    },
  };
}

/** A search has to return `stack` as it was sent. Entries that store it as one text may split it differently. */
function asSentRule(term: string): ReadRule {
  const person = searched.find((each) => holds(each, term)) as Pessoa;
  return {
    rule: `search: the person as sent: ${term}`,
    path: pathOf(term),
    expected: JSON.stringify(person),
    judge(_, body) {
      const [hit] = hitsOf(body) ?? [];
      return hit ? sameness(hit, { ...person, id: hit.id }) : "wrong";
    },
  };
}

/** The persons in the answer to a search. */
export function hitsOf(body: string): Stored[] | undefined {
  const found = parse(body);
  return Array.isArray(found) ? found : undefined;
}

/** Where stack has no elements, the instructions do not say how it comes back: as null, as [], or not at all. */
export function sameness(got: unknown, person: Pessoa & { id: string }): Outcome {
  if (isSame(got, person)) return "right";
  const orNull = (stack?: string[] | null) => (stack?.length ? stack : null);
  const { stack, ...others } = Object(got);
  const loose = { ...person, stack: orNull(person.stack) };
  return isSame({ ...others, stack: orNull(stack) }, loose) ? "lenient" : "wrong";
}
