import { expect, test } from "bun:test";
import { newPessoa } from "../helpers/requests.ts";
import { silentProxy } from "../helpers/silent-proxy.ts";
import { serve } from "../helpers/support.ts";

test("after an answer of Postgres that ended after its first row, the next ones are whole", async () => {
  const owner = await serve();
  const nome = `Cut ${crypto.randomUUID()}`;
  for (let i = 0; i < 3; i++) await owner.post({ ...newPessoa(), nome });

  const proxy = await silentProxy(owner.databaseUrl);
  const registry = await serve({ DATABASE_URL: proxy.url });
  expect(await registry.search(nome)).toHaveLength(3);
  for (let i = 0; i < 3; i++) {
    const cut = proxy.fault({ at: "row", close: true });
    const path = `/pessoas?t=${encodeURIComponent(nome)}`;
    expect((await registry.get(path)).status).toBe(503);
    await cut;
    let answer = await registry.get(path);
    while (answer.status === 503) answer = await registry.get(path); // it connects anew
    expect(await answer.json()).toHaveLength(3);
  }
  await Promise.all([registry.stop(), owner.stop()]);
  proxy.close();
});
