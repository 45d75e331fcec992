import { expect, test } from "bun:test";
import net from "node:net";
import { newPessoa, serve } from "./support.ts";

test("after an answer of Postgres that ended after its first row, the next ones are whole", async () => {
  const owner = await serve();
  const nome = `Cut ${crypto.randomUUID()}`;
  for (let i = 0; i < 3; i++) await owner.post({ ...newPessoa(), nome });

  const { port, cutNext, close } = await proxyOf(owner.databaseUrl);
  const through = new URL(owner.databaseUrl);
  through.searchParams.delete("host");
  through.host = `127.0.0.1:${port}`;
  const registry = await serve({ DATABASE_URL: through.href });
  expect(await registry.search(nome)).toHaveLength(3);
  for (let i = 0; i < 3; i++) {
    cutNext();
    const path = `/pessoas?t=${encodeURIComponent(nome)}`;
    expect((await registry.get(path)).status).toBe(503);
    let answer = await registry.get(path);
    while (answer.status === 503) answer = await registry.get(path); // it connects anew
    expect(await answer.json()).toHaveLength(3);
  }
  await Promise.all([registry.stop(), owner.stop()]);
  close();
});

/** Passes everything on to Postgres, and of the next answer with rows the first row only: then it ends. */
async function proxyOf(databaseUrl: string) {
  const { hostname, port, searchParams } = new URL(databaseUrl);
  const folder = searchParams.get("host");
  const open = new Set<net.Socket>();
  let cut = false;
  const server = net.createServer((client) => {
    const postgres = folder
      ? net.connect(`${folder}/.s.PGSQL.${port || 5432}`)
      : net.connect(Number(port || 5432), hostname);
    client.pipe(postgres);
    postgres.on("data", (answer: Buffer) => {
      const end = cut ? endOfFirstRow(answer) : undefined;
      if (end === undefined) {
        client.write(answer);
        return;
      }
      cut = false;
      client.write(answer.subarray(0, end), () => {
        client.destroy();
        postgres.destroy();
      });
    });
    for (const socket of [client, postgres]) {
      open.add(socket);
      socket.on("error", () => {}); // a close follows
      socket.on("close", () => [client, postgres].map((each) => each.destroy()));
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as net.AddressInfo).port,
    cutNext: () => {
      cut = true;
    },
    close() {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}

/** Each message is a letter, four bytes that say its length with themselves, and its content. D is a row. */
function endOfFirstRow(answer: Buffer): number | undefined {
  for (let at = 0; at + 5 <= answer.length; ) {
    const end = at + 1 + answer.readInt32BE(at + 1);
    if (answer[at] === "D".charCodeAt(0)) return end;
    at = end;
  }
  return undefined;
}
