// The contest's rules, as data: what is sent and what has to come back. Independent of the product's code.
import { holds, type Pessoa } from "../data/contract.ts";

/** What the instructions say of a create. `open`: they leave it open, so 201 is lenient, and 400 and 422 are strict. */
type Ruling = "valid" | "invalid" | "open";
export type CreateRule = { group: string; ruling: Ruling; what: string; payload: string };
/** `expected` statuses are right, `allowed` ones are where the instructions leave room. */
export type GetRule = { group: string; what: string; path: string; expected: number[]; allowed: number[] };
/** A search for `term`, in the query as `query`. `open`: finding more is lenient. */
export type SearchRule = { group: string; what: string; term: string; query: string; open: boolean };

const u = "<u>"; // six characters that no other person has, put in when it is sent
const valid = { apelido: u, nome: "Ana Barbosa", nascimento: "1985-09-23", stack: ["C#", "Node"] };
const emoji = "🦜";
const a = (n: number, letter = "a") => letter.repeat(n);

/** Members that replace those of a valid person (undefined: left out), or the whole payload as text. */
type Change = Record<string, unknown> | string;
const creates: Record<string, [Ruling, string, Change][]> = {
  lengths: [
    ["valid", "apelido of 32 letters", { apelido: u + a(26) }],
    ["invalid", "apelido of 33 letters", { apelido: u + a(27) }],
    ["valid", "apelido of 32 characters, 26 of them ã", { apelido: u + a(26, "ã") }],
    ["valid", "apelido of 32 characters, 26 of them 李", { apelido: u + a(26, "李") }],
    ["invalid", "apelido of 33 characters, 27 of them ã", { apelido: u + a(27, "ã") }],
    ["open", "apelido of 32 characters, 26 of them beyond the basic plane", { apelido: u + a(26, emoji) }],
    ["valid", "nome of one letter", { nome: "a" }],
    ["valid", "nome of 100 letters", { nome: a(100) }],
    ["invalid", "nome of 101 letters", { nome: a(101) }],
    ["valid", "nome of 100 times é", { nome: a(100, "é") }],
    ["invalid", "nome of 101 times é", { nome: a(101, "é") }],
    ["valid", "element of 32 letters", { stack: [a(32)] }],
    ["invalid", "element of 33 letters", { stack: [a(33)] }],
    ["valid", "element of 32 times ã", { stack: [a(32, "ã")] }],
    ["invalid", "element of 33 times ã", { stack: ["Go", a(33, "ã")] }],
    ["open", "empty apelido", { apelido: "" }],
    ["open", "empty nome", { nome: "" }],
    ["open", "empty element", { stack: ["Go", ""] }],
    ["valid", "40 elements", { stack: Array.from({ length: 40 }, (_, nth) => `lang${nth}`) }],
  ],
  dates: [
    ["valid", "29 February of a leap year", { nascimento: "2000-02-29" }],
    ["valid", "31 December", { nascimento: "1999-12-31" }],
    ["invalid", "30 February", { nascimento: "2023-02-30" }],
    ["invalid", "29 February of 1900", { nascimento: "1900-02-29" }],
    ["invalid", "31 April", { nascimento: "2021-04-31" }],
    ["invalid", "month 13", { nascimento: "2021-13-01" }],
    ["invalid", "month 0", { nascimento: "2021-00-10" }],
    ["invalid", "day 0", { nascimento: "2021-01-00" }],
    ["invalid", "day 32", { nascimento: "2021-01-32" }],
    ["invalid", "day first", { nascimento: "23-09-1985" }],
    ["invalid", "slashes", { nascimento: "1985/09/23" }],
    ["invalid", "no hyphens", { nascimento: "19850923" }],
    ["invalid", "one digit", { nascimento: "1985-9-3" }],
    ["invalid", "with a time", { nascimento: "1985-09-23T00:00:00Z" }],
    ["invalid", "words", { nascimento: "?!?!?" }],
    ["invalid", "empty", { nascimento: "" }],
    ["open", "the year 1", { nascimento: "0001-01-01" }],
    ["open", "a blank before it", { nascimento: " 1985-09-23" }],
  ],
  types: [
    ["invalid", "apelido is a number", { apelido: 1 }],
    ["invalid", "apelido is a list", { apelido: [u] }],
    ["invalid", "nome is a number", { nome: 1 }],
    ["invalid", "nome is true", { nome: true }],
    ["invalid", "nome is an object", { nome: {} }],
    ["invalid", "nascimento is a number", { nascimento: 19850923 }],
    ["invalid", "stack is text", { stack: "PHP" }],
    ["invalid", "stack is a number", { stack: 1 }],
    ["invalid", "stack is an object", { stack: {} }],
    ["invalid", "an element is a number", { stack: [1, "PHP"] }],
    ["invalid", "an element is null", { stack: ["PHP", null] }],
    ["invalid", "an element is a list", { stack: [["PHP"]] }],
    ["invalid", "the body is a list", "[]"],
    ["invalid", "the body is text", '"Ana"'],
    ["invalid", "the body is null", "null"],
    ["invalid", "the body is empty", ""],
    ["invalid", "the body ends early", `{"apelido": "${u}", "nome": "Ana"`],
    ["invalid", "the body is no JSON", "apelido=ana&nome=Ana"],
    ["valid", "a member that is not asked for", { idade: 30 }],
  ],
  "null and missing": [
    ["invalid", "apelido is null", { apelido: null }],
    ["invalid", "apelido is missing", { apelido: undefined }],
    ["invalid", "nome is null", { nome: null }],
    ["invalid", "nome is missing", { nome: undefined }],
    ["invalid", "nascimento is null", { nascimento: null }],
    ["invalid", "nascimento is missing", { nascimento: undefined }],
    ["invalid", "an empty object", "{}"],
    ["valid", "stack is null", { stack: null }],
    ["valid", "stack is missing", { stack: undefined }],
    ["valid", "stack is empty", { stack: [] }],
  ],
  "as sent": [
    ["valid", "order and repeats in stack", { stack: ["Go", "Bun", "Go"] }],
    ["valid", "blanks and commas in stack", { stack: ["C# e F#", "a,b", " x "] }],
    ["valid", "quotes and backslashes", { nome: 'Ana "Q" \\o/', stack: ["d'água", "{a}"] }],
    ["valid", "letters of other scripts", { nome: `Ωmega 李小龍 ${emoji}`, stack: ["Ünal", emoji] }],
    ["valid", "blanks around nome", { nome: " Ana " }],
    ["open", "a composed and a decomposed é", { nome: "\u00e9 e\u0301" }],
  ],
  duplicates: [
    ["valid", "an apelido for the first time", { apelido: "Duplo0" }],
    ["invalid", "the same apelido again", { apelido: "Duplo0", nome: "Bia" }],
    ["invalid", "the same apelido a third time", { apelido: "Duplo0", stack: null }],
    ["open", "the same apelido in other letters", { apelido: "duplo0" }],
    ["valid", "the same apelido with an accent", { apelido: "Dúplo0" }],
  ],
  // Last: in some entries one of these takes others with it, which the count shows.
  "what a database may not hold": [
    ["valid", "a person before", {}],
    ["open", "U+0000 in nome", { nome: "a\0b" }],
    ["open", "half a surrogate pair in nome", JSON.stringify({ ...valid, nome: "a\ud800b" })],
    ["valid", "a person after", {}],
  ],
};

export const createRules: CreateRule[] = Object.entries(creates).flatMap(([group, rules]) =>
  rules.map(([ruling, what, change]) => {
    const payload = typeof change === "string" ? change : JSON.stringify({ ...valid, ...change });
    return { group, ruling, what, payload };
  }),
);

/** The payload of a rule, with the six characters that only this person has. */
export function payloadOf({ payload }: CreateRule, nth: number): string {
  return payload.replaceAll(u, `r${String(nth).padStart(5, "0")}`);
}

const get = (what: string, path: string, expected: number[], allowed: number[] = [], group = "read") => {
  return { group, what, path, expected, allowed };
};
export const getRules: GetRule[] = [
  get("an id that nobody has", "/pessoas/00000000-0000-4000-8000-000000000000", [404]),
  get("an id that is no UUID", "/pessoas/not-a-uuid", [404], [400, 422]),
  get("an id that is a number", "/pessoas/1", [404], [400, 422]),
  get("no t", "/pessoas", [400], [], "search"),
  get("t is empty", "/pessoas?t=", [400], [200], "search"),
  get("another parameter than t", "/pessoas?termo=ana", [400], [], "search"),
];

const nascimento = "1985-09-23";
const pessoa = (apelido: string, nome: string, stack: string[] | null): Pessoa => {
  return { apelido, nome, nascimento, stack };
};
/** Persons to search for. Nobody else has their digits. */
export const searched: Pessoa[] = [
  pessoa("s1 Maçã7", "José Zebu7", ["Elixir7", "C# e F#7"]),
  pessoa("s2 cem7%", "sub_linha7", ["barra\\7", "[x]7(y)*7"]),
  pessoa("s3 fim7", "8começo", ["um9", "9dois", "três7"]),
  pessoa("s4 ÉGUA7", "ÃO7 MAIÚSCULA", null),
  pessoa("s5 aspas7", 'd\'água7 "Q"', []),
  ...Array.from({ length: 55 }, (_, nth) => pessoa(`m${nth} 7`, "Muitos7", ["Go"])),
];

const terms: Record<string, [what: string, term: string, more?: { open?: true; query?: string }][]> = {
  search: [
    ["a nome", "Zebu7"],
    ["an apelido", "s1 Maçã7"],
    ["an element", "Elixir7"],
    ["a part of a word", "lixir7"],
    ["small letters for capital ones", "maiúscula"],
    ["capital letters for small ones", "ZEBU7"],
    ["small accented letters for capital ones", "égua7"],
    ["capital accented letters for small ones", "MAÇÃ7"],
    ["no accents", "maca7", { open: true }],
    ["a term that nobody has", "ninguem7"],
    ["+ for a blank", "C# e F#7", { query: "C%23+e+F%237" }],
    ["more than 50 persons", "muitos7"],
  ],
  "search, literally": ["%", "7%", "_", "b_l", "\\", "[x", "(y", "*7", "d'água7", '"Q"', ".", "^"].map(
    (term) => [term, term],
  ),
  "search across fields": ["fim78", "fim7 8", "fim7,8", "começoum9", "começo um9", "começo,um9"]
    .concat("um99dois", "um9 9dois", "um9,9dois", 'um9","9dois')
    .map((term) => [term, term]),
};

export const searchRules: SearchRule[] = Object.entries(terms).flatMap(([group, rules]) =>
  rules.map(([what, term, { open = false, query = encodeURIComponent(term) } = {}]) => {
    return { group, what, term, query, open };
  }),
);

/** Whom a search has to find. */
export function matching(term: string): Pessoa[] {
  return searched.filter((person) => holds(person, term));
}
