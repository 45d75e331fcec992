import { afterAll, expect, test } from "bun:test";
import { join } from "node:path";
import createClient from "openapi-fetch";
import type { paths } from "../../contract/client.d.ts";
import { openApi } from "../../contract/openapi.ts";
import { newPessoa } from "../helpers/requests.ts";
import { project, serve } from "../helpers/support.ts";

const registry = await serve();
afterAll(registry.stop);

test("the typed client creates, reads, searches and counts", async () => {
  const client = createClient<paths>({ baseUrl: registry.url });
  const { apelido } = newPessoa();
  const body = { apelido, nome: "Ana Barbosa", nascimento: "1985-09-23", stack: ["Bun"] };

  const { data: created } = await client.POST("/pessoas", { body });
  expect(created).toMatchObject(body);
  const { data: read } = await client.GET("/pessoas/{id}", {
    params: { path: { id: created?.id as string } },
  });
  expect(read).toEqual(created as NonNullable<typeof created>);
  const { data: found } = await client.GET("/pessoas", { params: { query: { t: apelido } } });
  expect(found?.map(({ nome }) => nome)).toEqual(["Ana Barbosa"]);
  const { data: count } = await client.GET("/contagem-pessoas", { parseAs: "text" });
  expect(count).toBe("1");

  const { error, response } = await client.POST("/pessoas", { body });
  expect([response.status, error?.errors?.[0]?.field]).toEqual([422, "apelido"]);
  // @ts-expect-error: nome is not a number
  const wrong = await client.POST("/pessoas", { body: { ...body, nome: 1 } });
  expect(wrong.response.status).toBe(400);
});

test('its types are those of this document (otherwise run "bun run client")', async () => {
  const types = await Bun.file(join(project, "contract", "client.d.ts")).text();
  expect(types).toContain(new Bun.CryptoHasher("sha256").update(openApi()).digest("hex"));
});
