// /docs in a real Chromium: bun run test:browser. Fails without Chromium, so it is not part of "bun test".
// CHROMIUM names the program; default: chromium.
import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import { launch, shown, tryItOut } from "../helpers/browser.ts";
import { type Found, newPessoa } from "../helpers/requests.ts";
import { serve, temporaryFolder } from "../helpers/support.ts";

const folder = await temporaryFolder();
const registry = await serve();
const browser = await launch(join(folder.path, "profile"));
afterAll(async () => {
  await browser.close();
  await registry.stop();
  await folder[Symbol.asyncDispose]();
});

test.each(["/", "/docs"])(
  '%s: "Try it out" creates a person, without a request to another site or an error on the console',
  async (path) => {
    const before = await registry.count();
    const person = newPessoa();
    const tab = await browser.open(new URL(path, registry.url).href, { scheme: "light", width: 1200 });
    const created = JSON.parse(await tryItOut(tab, JSON.stringify(person))) as Found;
    expect(created).toMatchObject(person);
    expect(await registry.count()).toBe(before + 1);
    expect(await registry.search(person.apelido)).toEqual([created]);
    await tab.close();
    const { origin } = new URL(registry.url);
    const fetched = tab.events.filter((event) => !event.startsWith("request data:"));
    const files = "page.css start.js swagger-ui-bundle.js swagger-ui.css"
      .split(" ")
      .map((name) => `/docs/${name}`);
    const paths = [...(path === "/" ? ["/"] : []), "/docs", ...files, "/openapi.json", "/pessoas"];
    expect(fetched.sort()).toEqual(paths.map((each) => `request ${origin}${each}`));
  },
);

// With everything unfolded, and the answer to a create.
test.each([
  ["light", 1200],
  ["dark", 1200],
  ["light", 390],
  ["dark", 390],
] as const)(
  "/docs in %s mode, %d pixels wide, follows the colour scheme and does not scroll sideways",
  async (scheme, width) => {
    const tab = await browser.open(new URL("/docs", registry.url).href, { scheme, width });
    await tryItOut(tab, JSON.stringify({ ...newPessoa(), nome: "Ana".repeat(33) }));
    type Seen = { widths: number[]; areas: number[]; text: number };
    const { widths, areas, text } = await tab.run<Seen>(`(async () => {
      ${shown}
      for (const closed of document.querySelectorAll(".opblock:not(.is-open) .opblock-summary-control")) closed.click();
      for (const closed of document.querySelectorAll(".models-control[aria-expanded=false]")) closed.click();
      await shown(".opblock:last-child .opblock-body");
      for (const each of document.querySelectorAll(".models .json-schema-2020-12-expand-deep-button")) each.click();
      await shown(".models", "UUIDv5");
      const luminance = (color) => {
        const [r, g, b, alpha = 1] = color.match(/[\\d.]+/g).map(Number);
        return alpha < 0.9 ? null : (0.2126 * r + 0.7152 * g + 0.0722 * b) / 255;
      };
      const root = document.documentElement;
      const large = [...document.querySelectorAll("body *")].filter((each) => each.clientWidth > 150 && each.clientHeight > 60);
      return {
        widths: [root.clientWidth, root.scrollWidth],
        areas: [root, ...large].map((each) => luminance(getComputedStyle(each).backgroundColor)).filter((each) => each !== null),
        text: luminance(getComputedStyle(document.querySelector(".info .title")).color),
      };
    })()`);
    await tab.close();
    expect(widths).toEqual([width, width]);
    if (scheme === "dark") {
      expect(areas.length).toBeGreaterThan(1);
      expect(Math.max(...areas)).toBeLessThan(0.3);
      expect(text).toBeGreaterThan(0.6);
    } else expect(text).toBeLessThan(0.4);
  },
);

test("/docs: all accessibility violations that axe finds are in swagger-ui itself", async () => {
  const { run, barriers, close } = await browser.open(new URL("/docs", registry.url).href, {
    scheme: "light",
    width: 1200,
  });
  await run(`(async () => {
    ${shown}
    await shown(".opblock-summary-path", "/readyz");
  })()`);
  const rules = (await barriers()).map((each) => each.split(":")[0]);
  await close();
  const known = "color-contrast heading-order nested-interactive region";
  expect([...new Set(rules)].sort().join(" ")).toBe(known);
});
