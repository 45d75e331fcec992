// /docs as people see it, in a real Chromium: bun run test:browser. Not part of "bun test", because few have one;
// here its absence fails. CHROMIUM names it where it is not "chromium".
import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { launch, shown, tryItOut } from "./browser.ts";
import { type Found, newPessoa, serve, temporaryFolder } from "./support.ts";

// Where to leave what it saw, for people to look at.
const screenshots = process.env.SCREENSHOTS;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let registry: Awaited<ReturnType<typeof serve>>;
let browser: Awaited<ReturnType<typeof launch>>;
beforeAll(async () => {
  folder = await temporaryFolder();
  registry = await serve();
  browser = await launch(process.env.CHROMIUM ?? "chromium", join(folder.path, "profile"));
}, 60_000);
afterAll(async () => {
  await browser?.close();
  await registry.stop();
  await rm(folder.path, { recursive: true, force: true });
});

test.each(["/", "/docs"])(
  "%s: a person is created by trying it out; nothing is fetched from elsewhere, nothing complains",
  async (path) => {
    const before = await registry.count();
    const person = newPessoa();
    const tab = await browser.open(new URL(path, registry.url).href, { scheme: "light", width: 1200 });
    const created = JSON.parse(await tryItOut(tab, JSON.stringify(person))) as Found;
    expect(created).toMatchObject(person);
    expect(await registry.count()).toBe(before + 1);
    expect(await registry.search(person.apelido)).toEqual([created]);
    if (screenshots) await Bun.write(join(screenshots, "docs.png"), await tab.screenshot());
    await tab.close();
    const { origin } = new URL(registry.url);
    const fetched = tab.events.filter((event) => !event.startsWith("request data:"));
    expect(fetched.sort()).toEqual(
      [
        ...(path === "/" ? ["/"] : []),
        ...["/docs", "/docs/start.js", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"],
        ...["/openapi.json", "/pessoas"],
      ].map((each) => `request ${origin}${each}`),
    );
  },
  60_000,
);

test("/docs: what keeps people from using it, as far as axe can tell, is in swagger-ui itself", async () => {
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
  expect([...new Set(rules)].sort()).toEqual([
    "color-contrast",
    "heading-order",
    "nested-interactive",
    "region",
  ]);
}, 60_000);
