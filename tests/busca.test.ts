import { expect, setDefaultTimeout, test } from "bun:test";
import fc from "fast-check";
import { searchable, wanted } from "../busca.ts";
import { commonElements } from "../comuns.ts";
import { enough, shortTerms, textOf } from "../curtos.ts";
import { rarity } from "../raros.ts";
import { holds } from "../stress-test/contract.ts";

setDefaultTimeout(60_000); // on a busy machine 20,000 runs take longer than the 5 s of the default

// The letters that other characters are written as are characters, too, and so are halves of pairs and the border.
const character = fc.oneof(
  fc.constantFrom(
    ...[
      "a",
      "B",
      "é",
      "e\u0301",
      "İ",
      "ı",
      "Σ",
      "ς",
      "ß",
      "7",
      "²",
      "٣",
      " ",
      "+",
      "%",
      "_",
      "\\",
      "\u0001",
      "\u007f",
    ],
    ...["\u3400", "\u3440", "\u383f", "\u3840", "\u3c3f", "\u3c40", "\u3cbf", "\u3cc0", "\u4dbf", "漢", "ꀀ"],
    ...["😀", "😁", "\u{10400}", "\u{10428}", "\u{10ffff}", "\uffff", "\u200d", "\u0e33", "\u093e"],
    // The edges of what is kept, and letters younger than some C libraries.
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
/** Somebody, and a term that is a piece of what they hold, of two fields together, or anything. */
const asked = person.chain((who) => {
  const fields = [who.apelido, who.nome, ...(who.stack ?? [])];
  const piece = fc
    .tuple(fc.constantFrom(...fields, fields.join(""), fields.join("\u0001")), fc.nat(), fc.nat())
    .map(([field, from, length]) => {
      const characters = [...field];
      const start = from % characters.length;
      return characters.slice(start, start + 1 + (length % characters.length)).join("");
    });
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

test("a text holds a term exactly when a field does, and letters alone are to be found in it", () => {
  fc.assert(
    fc.property(asked, ([who, , term]) => {
      const what = wanted(term);
      if (what === undefined || "short" in what) return;
      expect(searchable(who).text.includes(what.text)).toBe(holds(who, term));
      expect(what.text).toMatch(/^[\p{L}0-9]{3,}$/u);
    }),
    { numRuns: 20_000 },
  );
});

test("a short term has a row exactly when a field holds it", () => {
  fc.assert(
    fc.property(asked, ([who, fields, term]) => {
      const what = wanted(term);
      if (what === undefined || "text" in what) return;
      const rows = shortTerms(1000).missing(searchable(who).fields).map(textOf);
      expect(rows.includes(what.short)).toBe(
        fields.some((field) => field.toLowerCase().includes(what.short)),
      );
      expect(new Set(rows).size).toBe(rows.length);
    }),
    { numRuns: 20_000 },
  );
});

test("whatever is known of rarity, a pattern leaves out nobody with the term", () => {
  const rare = rarity();
  fc.assert(
    fc.property(asked, ([who, , term]) => {
      const { text } = searchable(who);
      rare.learn(text);
      const what = wanted(term);
      if (what === undefined || "short" in what || !text.includes(what.text)) return;
      const [, ...parts] = rare.pattern(what.text).split("%");
      expect(text).toMatch(new RegExp(parts.join("[^]*"), "u")); // letters alone: nothing to escape
    }),
    { numRuns: 20_000 },
  );
});

test("a pattern has the rarest of what is known", () => {
  const rare = rarity();
  for (let i = 0; i < 3000; i++) rare.learn(`python${i % 3 ? "javascript" : "silva"}`);
  expect(rare.pattern("pythonwxyz")).toBe("%onw%xyz%");
  expect(rare.pattern("python")).toBe("%python%");
});

test("a term is rare when its rarest trigram is, and nothing is before anything is known", () => {
  const rare = rarity();
  expect(rare.isRare("wxyz")).toBe(false);
  for (let i = 0; i < 1000; i++) rare.learn(`python${i < 3 ? "javascript" : i < 6 ? "silva" : "go"}`);
  expect([rare.isRare("wxyz"), rare.isRare("javascript"), rare.isRare("thon")]).toEqual([true, false, false]);
  expect(rare.isRare("pythonsilva")).toBe(false);
  for (let i = 0; i < 900; i++) rare.learn("python");
  expect([rare.isRare("silva"), rare.isRare("hons"), rare.isRare("thon")]).toEqual([true, true, false]);
});

test("a term wants rows until there are enough, and again once it is forgotten", () => {
  const short = shortTerms(3);
  const [a, b] = [["á"], ["b"]];
  for (let i = 0; i < enough; i++) {
    expect(short.missing(a)).toHaveLength(1);
    short.added(short.missing(a));
  }
  expect(short.missing(a)).toEqual([]);
  short.full(["b", "é😀"]);
  expect([short.missing(b), short.missing(["é😀"]).map(textOf)]).toEqual([[], ["é", "😀"]]);
  short.full(["c"]);
  expect(short.missing(a)).toHaveLength(1);
  expect(short.missing(b)).toEqual([]); // ASCII is never forgotten
});

test("without what is common, every term still has as many texts and rows as holders, or enough", () => {
  const words = ["Python", "python 3", "PyPy", "Go", "C", "İzmir", "java", "JavaScript", "C++"];
  const stack = fc.array(fc.constantFrom(...words), { maxLength: 6 });
  const persons = fc.array(fc.record({ apelido: text(6), nome: text(6), stack }), {
    minLength: 400,
    maxLength: 400,
  });
  const wordsOrMemory = fc.constantFrom(2, 100); // with 2, all others are forgotten again and again
  const terms = [...words, "ytho", "pyp", "İz", "i", "av", "script", "+", "++", "c+", "zzz"];
  fc.assert(
    fc.property(persons, wordsOrMemory, (all, max) => {
      const common = commonElements(max);
      const short = shortTerms(1000);
      const texts: string[] = [];
      const rows: string[] = [];
      for (const who of all) {
        const { fields, elements, text } = searchable(who, common.has);
        texts.push(text);
        const missing = short.missing(fields);
        rows.push(...missing.map(textOf));
        short.added(missing);
        common.stored(elements);
      }
      for (const term of terms) {
        const holders = all.filter((who) => holds(who, term)).length;
        const what = wanted(term) as { short: string } | { text: string };
        const found =
          "short" in what
            ? rows.filter((row) => row === what.short).length
            : texts.filter((each) => each.includes(what.text)).length;
        expect(found).toBeLessThanOrEqual(holders);
        expect(found).toBeGreaterThanOrEqual(Math.min(holders, enough));
      }
    }),
    { numRuns: 30 },
  );
});
