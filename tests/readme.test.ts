import { expect, test } from "bun:test";
import verdict from "../docs/results/verdict.json";
import { readSettings } from "../process/settings.ts";

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

test.each([
  ["README.md", english, "en"],
  ["README.pt-BR.md", portuguese, "pt-BR"],
])(
  "the numbers in %s are those of docs/results/verdict.json, and of its own table of faults",
  (_, text, language) => {
    const number = (value: number, digits = 0) =>
      value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
    const mebibytes = (bytes: number) => `${number(bytes / 2 ** 20)} MiB`;
    const requests = Object.values(verdict.requests);
    const services = Object.values(verdict.services);
    const sum = <T>(all: T[], of: (each: T) => number) => all.reduce((total, each) => total + of(each), 0);
    const use = (userS: number, systemS: number, throttledS: number, bytes: number) =>
      ` | ${[userS, systemS, throttledS].map((each) => number(each, 1)).join(" | ")} | ${mebibytes(bytes)} |\n`;

    for (const { requests: sent, failed, p50, p95, p99, max } of requests) {
      const latencies = [p50, p95, p99, max].map((ms) => `${number(ms)} ms`).join(" | ");
      expect(text).toContain(` | ${number(sent)} | ${failed} | ${latencies} |\n`);
    }
    for (const [name, each] of Object.entries(verdict.services)) {
      const { userS, systemS, throttledS, peakWorkingSetBytes } = each;
      expect(text).toContain(`| ${name}${use(userS, systemS, throttledS, peakWorkingSetBytes)}`);
    }
    const userS = sum(services, (each) => each.userS);
    const systemS = sum(services, (each) => each.systemS);
    const throttledS = sum(services, (each) => each.throttledS);
    expect(text).toContain(use(userS, systemS, throttledS, verdict.peakWorkingSetBytes));

    const { count, readBack } = verdict;
    const of = language === "en" ? "of" : "de";
    const all = number(sum(requests, (each) => each.requests));
    const failed = sum(requests, (each) => each.failed);
    expect(text).toContain(`: **${number(count.stored)} ${of} ${number(count.maximum)}**.`);
    expect(text).toContain(`: **${failed} ${of} ${all}**.`);
    expect(text).toContain(`: **${readBack.lost + readBack.changed} ${of} ${number(readBack.persons)}**.`);
    expect(text).toContain(`${failed} ${of} ${all} req`); // on the first screen
    expect(text).toContain(
      `p99 ${language === "en" ? "of a create" : "de um create"} ${verdict.requests.create.p99} ms`,
    );

    const { create, search } = verdict.requests;
    const latencies = `${number(create.p99)} ms | ${number(search.p99)} ms`;
    const cost = `${number(userS + systemS)} | ${mebibytes(sum(services, (each) => each.peakBytes))}`;
    const share = number((100 * count.stored) / count.maximum);
    expect(text).toContain(`** | ${share} % | ${failed} | ${latencies} | ${cost} `);
    const survived = (scenario: string) => {
      const row = text.split("\n").find((line) => line.endsWith(`| \`${scenario}\` |`)) as string;
      const [, , acknowledged, , lost] = row.split("|");
      return `${number(Number(acknowledged))} / **${Number(lost)}**`;
    };
    expect(text).toContain(` | ${survived("kill-both-apis")} | ${survived("kill-postgres")} | `);
  },
);
