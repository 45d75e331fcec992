import { expect, test } from "bun:test";
import { join } from "node:path";
import { type Growth, renderMarkdown } from "./growth.ts";

test("docs/scaling.md shows the numbers of docs/results/growth.json", async () => {
  const docs = join(import.meta.dir, "..", "docs");
  const growth = (await Bun.file(join(docs, "results", "growth.json")).json()) as Growth;
  expect(growth.problems).toEqual([]);
  const text = await Bun.file(join(docs, "scaling.md")).text();
  for (const line of renderMarkdown(growth).split("\n")) expect(text).toContain(line);
});
