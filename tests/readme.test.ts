import { expect, test } from "bun:test";
import { readSettings } from "../settings.ts";

const english = await Bun.file("README.md").text();
const portuguese = await Bun.file("README.pt-BR.md").text();

const blocks = (text: string) => [...text.matchAll(/^```(\w*)\n(.*?)^```$/gms)];
const prose = (text: string) => text.replace(/^```.*?^```$/gms, "");
const headings = (text: string) => [...prose(text).matchAll(/^(#+) /gm)].map(([, level]) => level);
/** Without comments, which are translated. */
const commands = (text: string) => text.replace(/\s*#.*$/gm, "");
const links = (text: string) =>
  [...prose(text).matchAll(/\]\(([^)#]+)\)/g)]
    .map(([, target]) => target)
    .filter((target) => !target?.startsWith("README"));
/** What stands in backticks at the start of a table's rows: names, which are not translated. */
const rows = (text: string) =>
  [...prose(text).matchAll(/^\| (`[^|]*`|---) .*\|$/gm)].map(([, first]) => first);

test("README.pt-BR.md has the same sections, commands, answers, tables and links", () => {
  expect(headings(portuguese)).toEqual(headings(english));
  expect(blocks(portuguese).map(([, language]) => language)).toEqual(
    blocks(english).map(([, language]) => language),
  );
  for (const [i, [, language, code = ""]] of blocks(english).entries()) {
    const translated = blocks(portuguese)[i]?.[2] ?? "";
    if (language === "sh") expect(commands(translated)).toBe(commands(code));
    else if (language !== "mermaid") expect(translated).toBe(code);
  }
  expect(rows(portuguese)).toEqual(rows(english));
  expect(links(portuguese).toSorted()).toEqual(links(english).toSorted());
});

test("every setting is in the table, with its default", () => {
  const defaults = Object.entries(readSettings({})).filter(([name]) => name !== "DATA_DIR");
  expect(defaults.length).toBeGreaterThan(5);
  for (const [name, value] of defaults) expect(english).toContain(`| \`${name}\` | \`${value}\` |`);
});

test("the files that it links to exist", async () => {
  for (const target of links(english).filter((link) => !link?.startsWith("http"))) {
    expect([target, await Bun.file(target as string).exists()]).toEqual([target, true]);
  }
});
