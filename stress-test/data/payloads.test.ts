import { describe, expect, test } from "bun:test";
import { generate, payloadsFile, renderFiles } from "./payloads.ts";
import { expectAnswers, expectedFor, type Pessoa, readColumn, readPessoa } from "./reference-contract.ts";

const ana = { apelido: "ana", nome: "Ana", nascimento: "2000-02-29", stack: ["Go", "C#"] };
const json = (change: object) => JSON.stringify({ ...ana, ...change });

describe("generate", () => {
  test("the same seed gives the same bytes, another seed others", () => {
    expect(renderFiles(7, 2000, 100)).toEqual(renderFiles(7, 2000, 100));
    expect(renderFiles(8, 2000, 100)[payloadsFile]).not.toBe(renderFiles(7, 2000, 100)[payloadsFile]);
    // The hash is fixed, because results of one seed have to stay comparable between versions and machines.
    const bytes = Object.values(renderFiles(1, 1000, 100)).join("");
    expect(new Bun.CryptoHasher("sha256").update(bytes).digest("hex")).toBe(
      "62dda864d3c10854e0ee9b1b40a4b211b47635b9520593d53bf702dbe1dcfce7",
    );
  });

  test("the distribution is the contest's", () => {
    const { rows, terms } = generate(3, 20_000, 1000);
    const bodies = rows.map(({ payload }) => JSON.parse(payload) as Pessoa);
    const share = (test: (body: Pessoa) => boolean) => bodies.filter(test).length / bodies.length;
    expect(share(({ apelido }) => apelido.length > 32)).toBeCloseTo(0.01, 2);
    expect(share(({ nome }) => nome.length > 100)).toBeCloseTo(0.01, 2);
    expect(share(({ nascimento }) => !/^\d{4}-\d\d-\d\d$/.test(nascimento))).toBeCloseTo(0.01, 2);
    expect(share(({ nascimento }) => nascimento.slice(5, 7) === "13")).toBeCloseTo(1 / 13, 2);
    expect(share(({ apelido }) => apelido.length === 1)).toBeCloseTo(1 / 32, 2);
    expect(share(({ stack }) => stack === null)).toBeCloseTo(0.07, 2);
    expect(Math.max(...bodies.map(({ stack }) => (Array.isArray(stack) ? stack.length : 0)))).toBe(26);
    expect(expectedFor(rows)[201] / rows.length).toBeCloseTo(0.855, 1);
    expect(terms.every((term) => term.length >= 1 && term.length <= 50 && term.trim() === term)).toBe(true);
  });

  test("payloads read from the file are those that were written", () => {
    const tsv = renderFiles(5, 3000, 10)[payloadsFile] ?? "";
    expect(readColumn(tsv)).toEqual(generate(5, 3000, 10).rows.map(({ payload }) => payload));
  });
});

describe("expectation", () => {
  const longest = {
    apelido: "🐘".repeat(32),
    nome: "é".repeat(100),
    stack: ["x".repeat(32)],
  };
  test.each([
    ["a typical person", {}],
    ["members of the greatest length in code points", longest],
    ["an empty stack", { stack: [] }],
    ["spaces only", { nome: " " }],
    ["the first day", { nascimento: "0001-01-01" }],
    ["29 February 2000", { nascimento: "2000-02-29" }],
  ])("valid: %s", (_, change) => {
    expect(readPessoa(json(change))).toEqual({ ...ana, ...change });
  });

  test("valid: an unknown member, which is left out", () => {
    expect(readPessoa(json({ id: 7 }))).toEqual(ana);
  });

  test.each([undefined, null])("valid: stack %p is read as null", (stack) => {
    expect(readPessoa(json({ stack }))).toEqual({ ...ana, stack: null });
  });

  test.each<[400 | 422, string, string]>([
    [400, "no JSON", "{"],
    [400, "an array", "[]"],
    [400, "null", "null"],
    [400, "a number for apelido", json({ apelido: 1 })],
    [400, "a number for nome", json({ nome: 1 })],
    [400, "a boolean for nascimento", json({ nascimento: true })],
    [400, "a string for stack", json({ stack: "Go" })],
    [400, "an object for stack", json({ stack: {} })],
    [400, "a number in stack", json({ stack: ["Go", 1] })],
    [400, "null in stack", json({ stack: [null] })],
    [400, "a wrong type beside a missing member", json({ apelido: undefined, nome: 1 })],
    [422, "no apelido", json({ apelido: undefined })],
    [422, "nome null", json({ nome: null })],
    [422, "nascimento null", json({ nascimento: null })],
    [422, "an empty apelido", json({ apelido: "" })],
    [422, "33 characters of apelido", json({ apelido: "🐘".repeat(33) })],
    [422, "101 characters of nome", json({ nome: "x".repeat(101) })],
    [422, "33 characters in stack", json({ stack: ["x".repeat(33)] })],
    [422, "an empty string in stack", json({ stack: [""] })],
    [422, "U+0000", json({ nome: "a\0b" })],
    [422, "an unpaired surrogate", '{"apelido":"\\ud800","nome":"x","nascimento":"2000-01-01"}'],
    [422, "month 13", json({ nascimento: "2000-13-01" })],
    [422, "month 0", json({ nascimento: "2000-00-01" })],
    [422, "day 0", json({ nascimento: "2000-01-00" })],
    [422, "31 April", json({ nascimento: "2000-04-31" })],
    [422, "29 February 1900", json({ nascimento: "1900-02-29" })],
    [422, "29 February 2001", json({ nascimento: "2001-02-29" })],
    [422, "the year 0", json({ nascimento: "0000-01-01" })],
    [422, "a date with a newline after it", json({ nascimento: "2000-01-01\n" })],
    [422, "digits that are not ASCII", json({ nascimento: "２０００-01-01" })],
  ])("%d for %s", (status, _, payload) => {
    expect(readPessoa(payload)).toBe(status);
  });

  test("only valid rows take an apelido, and each of several rows with one apelido may get 201 or 422", () => {
    const rows = expectAnswers([
      json({ nome: 1 }),
      json({ nome: "" }),
      json({}),
      json({ nome: "Eva" }),
      json({ apelido: "eva" }),
    ]);
    expect(rows.map(({ status }) => status)).toEqual([400, 422, 201, 422, 201]);
    expect(rows.map(({ accept }) => accept)).toEqual([[400], [422], [201, 422], [201, 422], [201]]);
    expect(expectedFor(rows, 3)).toEqual({ 201: 1, 400: 1, 422: 1 });
    expect(expectedFor(rows)).toEqual({ 201: 2, 400: 1, 422: 2 });
    expect(() => expectedFor(rows, 6)).toThrow(RangeError);
  });

  test("the numbers for the first k rows do not depend on their order", () => {
    const { rows } = generate(11, 5000, 1);
    for (const k of [0, 1, 777, 5000]) {
      for (const order of [1, 1_000_003]) {
        const stored = new Set<string>();
        const answers = { 201: 0, 400: 0, 422: 0 };
        for (let step = 0; step < k; step++) {
          const row = rows[(step * order) % k]; // 1,000,003 is prime: each row once
          const pessoa = readPessoa(row?.payload ?? "");
          const status = typeof pessoa === "number" ? pessoa : stored.has(pessoa.apelido) ? 422 : 201;
          if (typeof pessoa === "object") stored.add(pessoa.apelido);
          answers[status]++;
          expect(row?.accept).toContain(status);
        }
        expect(answers).toEqual(expectedFor(rows, k));
        expect(stored.size).toBe(expectedFor(rows, k)[201]);
      }
    }
  });
});
