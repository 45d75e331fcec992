import { expect, test } from "bun:test";
import type { Options } from "../judge.ts";
import { project } from "./project.ts";

test("the count is asked for again while the load balancer answers 502", async () => {
  const answers = [502, 502, 200].values();
  using entry = Bun.serve({
    port: 0,
    fetch: () => new Response("7", { status: answers.next().value ?? 500 }),
  });
  const options = { port: entry.port, api: [], db: [], file: [] as string[] } as Partial<Options> as Options;
  expect(await project(".", options, new AbortController().signal).count()).toBe(7);
  expect(answers.next().done).toBe(true);
});
