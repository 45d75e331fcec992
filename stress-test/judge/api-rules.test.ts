import { expect, test } from "bun:test";
import { type Pessoa, readPessoa } from "../data/reference-contract.ts";
import { createRules, readRules, sameness, searched } from "./api-rules.ts";

test("what is valid and what is not is what the contract says, and no two rules have one name", () => {
  const rules = createRules.filter(({ rule }) => !rule.startsWith("duplicates: "));
  for (const { rule, ruling, payload } of rules) {
    const isValid = typeof readPessoa(payload) === "object";
    if (ruling !== "open") expect([rule, isValid]).toEqual([rule, ruling === "valid"]);
  }
  const names = [...rules, ...readRules].map(({ rule }) => rule);
  expect(names.filter((name, nth) => names.indexOf(name) !== nth)).toEqual([]);
});

test("a search is judged by the persons that it finds", () => {
  const outcomes = (name: string, ...answers: [status: number, apelidos: string[] | string][]) => {
    const { judge } = readRules.find(({ rule }) => rule === name) as (typeof readRules)[number];
    return answers.map(([status, found]) =>
      judge(
        status,
        typeof found === "string" ? found : JSON.stringify(found.map((apelido) => ({ apelido }))),
      ),
    );
  };
  const [s1, s2] = ["s1 maçã7", "s2 cem7%"];
  const many = searched.map(({ apelido }) => apelido).filter((apelido) => apelido.startsWith("m"));
  expect(
    outcomes("search: zebu7", [200, [s1]], [200, []], [200, [s1, s2]], [200, "{}"], [500, "[]"]),
  ).toEqual(["right", "wrong", "wrong", "wrong", "wrong"]);
  expect(outcomes("search without accents: maca7", [200, []], [200, [s1]])).toEqual(["strict", "lenient"]);
  expect(outcomes("search: uitos7", [200, many.slice(0, 50)], [200, many.slice(0, 49)], [200, many])).toEqual(
    ["right", "wrong", "lenient"],
  );
  expect(outcomes("search: t is empty", [400, ""], [200, "[]"], [500, ""])).toEqual([
    "right",
    "lenient",
    "wrong",
  ]);
  expect(outcomes("count: digits alone", [200, "12"], [200, "12\n"], [200, '"12"'])).toEqual([
    "right",
    "lenient",
    "wrong",
  ]);
});

test("a search is wrong where it finds a term across fields, in whatever order it joins them", () => {
  const wrong = (persons: readonly Pessoa[], textsOf: (person: Pessoa) => string[]) =>
    readRules.flatMap(({ rule, path, judge }) => {
      const term = new URL(path, "http://localhost").searchParams.get("t")?.toLowerCase();
      if (!term) return [];
      const found = persons.filter((person) =>
        textsOf(person).some((text) => text.toLowerCase().includes(term)),
      );
      const body = JSON.stringify(found.slice(0, 50).map((person) => ({ ...person, id: "1" })));
      return judge(200, body) === "wrong" ? [rule] : [];
    });
  const textsOf = ({ apelido, nome, stack }: Pessoa) => [apelido, nome, ...(stack ?? [])];
  expect(wrong(searched, textsOf)).toEqual([]);
  expect(wrong(searched, (person) => [textsOf(person).join(" ")])).toEqual([
    "search across fields: fim7 8",
    "search across fields: começo um9",
    "search across elements: um9 9dois",
  ]);
  expect(
    wrong(searched, ({ apelido, nome, stack }) => [`${nome}${apelido}${(stack ?? []).join(",")}`]),
  ).toEqual([
    "search across fields: começos3",
    "search across fields: fim7um9",
    "search across elements: um9,9dois",
  ]);
  // An entry that rejects null is wrong in one search alone.
  const withStack = searched.filter(({ stack }) => stack !== null);
  expect(wrong(withStack, textsOf)).toEqual(["search: the person as sent: nulo7"]);
});

test("a search that returns another stack than the one that was sent is wrong", () => {
  const rules = readRules.filter(({ rule }) => rule.startsWith("search: the person as sent"));
  const outcomes = (stackOf: (stack: string[] | null) => string[] | null) =>
    rules.map(({ judge, expected }) => {
      const person = JSON.parse(expected) as Pessoa;
      return judge(200, JSON.stringify([{ ...person, id: "1", stack: stackOf(person.stack) }]));
    });
  const joined = (stack: string[] | null) => (stack ?? []).join(",");
  expect(outcomes((stack) => stack)).toEqual(["right", "right", "right", "right"]);
  expect(outcomes((stack) => stack ?? [])).toEqual(["right", "right", "lenient", "right"]);
  expect(outcomes((stack) => joined(stack).split(","))).toEqual(["right", "wrong", "wrong", "wrong"]);
  expect(rules.map(({ judge }) => judge(200, "[]"))).toEqual(["wrong", "wrong", "wrong", "wrong"]);
});

test("a stack without elements may come back as null, as [], or not at all", () => {
  const person = { id: "1", apelido: "a", nome: "b", nascimento: "2000-01-01" };
  const judged = (stack: string[] | null, got: unknown) => sameness(got, { ...person, stack });
  expect(judged(null, { ...person, stack: null })).toBe("right");
  expect(judged(null, { ...person, stack: [] })).toBe("lenient");
  expect(judged([], person)).toBe("lenient");
  expect(judged(["Go"], { ...person, stack: [] })).toBe("wrong");
  expect(judged(["Go"], { ...person, stack: ["Go", "Go"] })).toBe("wrong");
  expect(judged(null, { ...person, stack: null, more: 1 })).toBe("wrong");
});
