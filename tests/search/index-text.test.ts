import { expect, test } from "bun:test";
import fc from "fast-check";
import { counter } from "../../search/bounded-counter.ts";
import { encode, isShort, lowerCased, searchable } from "../../search/index-text.ts";
import { maxFound } from "../../search/limits.ts";
import { trigramSample } from "../../search/rare-trigrams.ts";
import { searchableInBulk } from "../../search/search.ts";
import { shortTerms } from "../../search/short-terms.ts";
import { holds } from "../../stress-test/data/reference-contract.ts";
import { pieceOf } from "../helpers/random-persons.ts";
import { newPessoa } from "../helpers/requests.ts";

// Includes the letters that encode other characters, surrogate pairs and the separator.
const character = fc.oneof(
  fc.constantFrom(
    ...["e\u0301", ..."aBéİıΣςß7²٣ +%_\\\u0001\u007f"],
    ..."\u3400\u3440\u383f\u3840\u3c3f\u3c40\u3cbf\u3cc0\u4dbf漢ꀀ",
    ..."😀😁\u{10400}\u{10428}\u{10ffff}\uffff\u200d\u0e33\u093e",
    // The edges of the ranges that stay as they are, and letters newer than some C libraries.
    ..."×ö÷øſ\u0180ỹ\u1efbάҁ\u0482\u0483ҋҿӀӏغ\u063bゖ\u3099ヺ・ーヾヿ一龥\u9fa6가힣\ud7a4",
    ..."\u1c89\u1c8a\ua7cd\u088f\u{105c0}\u{2ebf0}\u{30000}\u{323b0}",
  ),
  fc.string({ unit: "binary", minLength: 1, maxLength: 1 }).filter((c) => c !== "\0" && c.isWellFormed()),
);
const text = (maxLength: number) => fc.string({ unit: character, minLength: 1, maxLength });
const person = fc.record({
  apelido: text(12),
  nome: text(20),
  stack: fc.option(fc.array(text(8), { maxLength: 4 })),
});
/** A person, its fields, and a term: a piece of a field, a piece across fields, or any text. */
const asked = person.chain((who) => {
  const fields = [who.apelido, who.nome, ...(who.stack ?? [])];
  const piece = pieceOf([...fields, fields.join(""), fields.join("\u0001")]);
  return fc.tuple(
    fc.constant(who),
    fc.constant(fields),
    fc.oneof(
      piece,
      piece.map((p) => p.toUpperCase()),
      text(5),
    ),
  );
});

const never = () => false;

test("an encoded text contains a term exactly when a field does, and consists of letters", () => {
  fc.assert(
    fc.property(asked, ([who, , term]) => {
      const wanted = lowerCased(term);
      if (wanted === undefined || isShort(wanted)) return;
      expect(searchable(who).text.includes(encode(wanted))).toBe(holds(who, term));
      expect(encode(wanted)).toMatch(/^[\p{L}0-9]{3,}$/u);
    }),
    { numRuns: 20_000 },
  );
});

test("a term that no field can contain is not searched for", () => {
  expect([lowerCased("a\0b"), lowerCased("a".repeat(401)), lowerCased("A".repeat(400))]).toEqual([
    undefined,
    undefined,
    "a".repeat(400),
  ]);
});

test("a short term has a row exactly when a field contains it", () => {
  fc.assert(
    fc.property(asked, ([who, fields, term]) => {
      const wanted = lowerCased(term);
      if (wanted === undefined || !isShort(wanted)) return;
      const rows = shortTerms(1000).needed(searchable(who).fields, never);
      expect(rows.includes(wanted)).toBe(fields.some((field) => field.toLowerCase().includes(wanted)));
      expect(new Set(rows).size).toBe(rows.length);
    }),
    { numRuns: 20_000 },
  );
});

test("a text with the term matches the term's pattern, for any sample", () => {
  const rare = trigramSample();
  fc.assert(
    fc.property(asked, ([who, , term]) => {
      const { text } = searchable(who);
      rare.learn(text);
      const wanted = lowerCased(term);
      if (wanted === undefined || isShort(wanted) || !text.includes(encode(wanted))) return;
      const [, ...parts] = rare.pattern(encode(wanted)).split("%");
      expect(text).toMatch(new RegExp(parts.join("[^]*"), "u")); // letters need no escaping
    }),
    { numRuns: 20_000 },
  );
});

test("a pattern has the rarest trigrams of the sample", () => {
  const rare = trigramSample();
  for (let i = 0; i < 3000; i++) rare.learn(`python${i % 3 ? "javascript" : "silva"}`);
  expect(rare.pattern("pythonwxyz")).toBe("%onw%xyz%");
  expect(rare.pattern("python")).toBe("%python%");
});

test("a short term needs rows until it has 50, and again after its eviction", () => {
  const short = shortTerms(3);
  for (let i = 0; i < maxFound; i++) {
    expect(short.needed(["á"], never)).toEqual(["", "á"]);
    short.stored(["á"]);
  }
  expect(short.needed(["á"], never)).toEqual([""]);
  short.complete(["", "é😀"]);
  expect(short.needed(["é😀"], never)).toEqual(["é", "😀"]);
  short.complete(["c"]);
  expect(short.needed(["á"], never)).toEqual(["á"]);
});

test("a short term that 50 persons in memory contain needs no row; memory is searched once for each ASCII term", () => {
  const short = shortTerms(1000);
  const asked: string[] = [];
  const isAnswered = (term: string) => {
    asked.push(term);
    return term.startsWith("a");
  };
  for (let i = 0; i < 2; i++) {
    expect(short.needed(["abé"], isAnswered).toSorted()).toEqual(["", "b", "bé", "é"]);
  }
  expect(asked).toEqual(["a", "b", "ab"]);
});

test("a counter is full at 50, and an evicted key is counted from 0", () => {
  const words = counter<string>(2);
  for (let i = 0; i < maxFound; i++) {
    expect(words.isFull("a")).toBe(false);
    words.add("a");
  }
  expect(words.isFull("a")).toBe(true);
  words.add("b");
  words.add("c");
  expect(words.get("a")).toBeUndefined();
});

test("a text stored in bulk leaves out elements that 50 persons in memory have", () => {
  const stacks = Array.from({ length: maxFound }, (_, i) => (i === 0 ? ["Go", "Go", "Zig"] : ["Go"]));
  const textOf = searchableInBulk(stacks, maxFound + 1);
  const person = (stack: string[]) => textOf({ ...newPessoa(), id: crypto.randomUUID(), stack }, 20);
  expect(person(["Go"])).toEqual({ text: null, fields: [] }); // the last one in memory
  expect(person(["Go", "Zig", "GO"]).fields.slice(2)).toEqual(["zig", "go"]);
});
