// Screenshots of /docs and of a report in Chromium: bun run screenshots
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { readSettings } from "../process/settings.ts";
import { start } from "../server.ts";
import { launch, tryItOut } from "../tests/helpers/browser.ts";
import { temporaryFolder } from "../tests/helpers/support.ts";
import { readPositionals } from "./arguments.ts";

const usage = `bun run screenshots [REPORT]   docs/images/docs.png and docs/images/report.png
  REPORT                        a report.html (default: that of a new benchmark of 8 s)
  CHROMIUM=chromium             the browser (environment variable)`;

const images = join(import.meta.dir, "..", "docs", "images");
// One size, because they stand side by side.
const [width, height] = [940, 1236];

const [givenReport] = readPositionals(usage, 0, 1);
await main(givenReport);

async function main(report: string | undefined) {
  await using folder = await temporaryFolder("screenshots");
  const settings = readSettings({ PORT: "0", DATA_DIR: join(folder.path, "data") });
  const server = await start(settings);
  const browser = await launch(join(folder.path, "profile"));
  const open = (url: string) => browser.open(url, { scheme: "light", width });
  try {
    const measured = report ? resolve(report) : await benchmark(server.url, folder.path);
    const tab = await open(new URL("/docs", server.url).href);
    await tryItOut(
      tab,
      '{"apelido": "ana", "nome": "Ana Barbosa", "nascimento": "1985-09-23", "stack": ["Node", "Postgres"]}',
    );
    // The box of the body is low, so that the answer is in the picture.
    const y = await tab.run<number>(`
      document.querySelector(".opblock-post textarea").style.height = "50px";
      document.querySelector(".opblock-post textarea").style.minHeight = "0";
      document.querySelector(".opblock-post").getBoundingClientRect().top + scrollY - 8`);
    await Bun.write(join(images, "docs.png"), await tab.screenshot({ x: 0, y, width, height }));
    const page = await open(pathToFileURL(measured).href);
    await Bun.write(join(images, "report.png"), await page.screenshot({ x: 0, y: 0, width, height }));
  } finally {
    await browser.close();
    await server.stop();
  }
}

async function benchmark(url: string, folder: string): Promise<string> {
  const script = join(import.meta.dir, "..", "stress-test", "bench.ts");
  const options = ["--scenario", "mixed", "--duration", "8", "--url", url, "--out", folder];
  const child = Bun.spawn([process.execPath, "run", script, ...options], {
    stdout: "ignore",
    stderr: "inherit",
  });
  if ((await child.exited) !== 0) throw new Error("the benchmark failed");
  return join(folder, "report.html");
}
