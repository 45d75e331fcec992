import { expect, test } from "bun:test";
import { generate } from "../data/payloads.ts";
import { readPessoa } from "../data/reference-contract.ts";
import { persons } from "./requests.ts";

test("persons are valid, and their apelidos are unique and in none of the contest's payloads", () => {
  const next = persons(3, 50, "0");
  const apelidos = Array.from({ length: 500 }, () => {
    const person = readPessoa(JSON.stringify(next()));
    if (typeof person === "number") throw new Error(`refused with ${person}`);
    return person.apelido;
  });
  expect(new Set(apelidos).size).toBe(500);
  const others = generate(3, 5000, 0).rows.map(({ payload }) => readPessoa(payload));
  const theirs = new Set(others.flatMap((person) => (typeof person === "object" ? [person.apelido] : [])));
  expect(apelidos.filter((apelido) => theirs.has(apelido))).toEqual([]);
});
