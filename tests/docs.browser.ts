// /docs as people see it, in a real Chromium: bun run test:browser. Not part of "bun test", because few have one;
// here its absence fails. CHROMIUM names it where it is not "chromium".
import "./setup.ts";
import { afterAll, beforeAll, expect, test } from "bun:test";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { launch } from "./browser.ts";
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

// Runs in the page: the first element that matches, as soon as there is one that shows `text`.
const helpers = `
  const shown = async (selector, text = "") => {
    for (let tries = 0; tries < 200; tries++) {
      const found = [...document.querySelectorAll(selector)].find((each) => each.textContent.includes(text));
      if (found) return found;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(selector + ": nothing shows " + text);
  };
`;

test.each(["/", "/docs"])(
  "%s: a person is created by trying it out; nothing is fetched from elsewhere, nothing complains",
  async (path) => {
    const before = await registry.count();
    const person = newPessoa();
    const { run, screenshot, events, close } = await browser.open(new URL(path, registry.url).href, {
      scheme: "light",
      width: 1200,
    });
    // As a user's typing does: React listens to the event and reads the value past its own property.
    const answer = await run<string>(`(async () => {
      ${helpers}
      (await shown(".opblock-post .opblock-summary-control")).click();
      const box = await shown(".opblock-post textarea.body-param__text");
      Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, ${JSON.stringify(JSON.stringify(person))});
      box.dispatchEvent(new Event("input", { bubbles: true }));
      (await shown(".opblock-post button.execute")).click();
      await shown(".live-responses-table .response-col_status", "201");
      return (await shown(".live-responses-table .response .highlight-code")).textContent;
    })()`);
    const created = JSON.parse(answer.slice(answer.indexOf("{"), answer.lastIndexOf("}") + 1)) as Found;
    expect(created).toMatchObject(person);
    expect(await registry.count()).toBe(before + 1);
    expect(await registry.search(person.apelido)).toEqual([created]);
    if (screenshots) await Bun.write(join(screenshots, "docs.png"), await screenshot());
    await close();
    const { origin } = new URL(registry.url);
    const fetched = events.filter((event) => !event.startsWith("request data:"));
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
