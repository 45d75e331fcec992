import { expect, test } from "bun:test";
import { once } from "node:events";
import { existsSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { newDatabase, serve, temporaryFolder } from "../helpers/support.ts";

test("on a Unix socket a stopping server leaves it to nginx to close: it answers, asks for that, and is not found again", async () => {
  await using folder = await temporaryFolder();
  const SOCKET = join(folder.path, "api.sock");
  const registry = await serve({ SOCKET, DATABASE_URL: await newDatabase() });
  const kept = net.connect(SOCKET);
  kept.setEncoding("latin1");
  const ask = async () => {
    kept.write("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    return String(await once(kept, "data"));
  };
  expect(await ask()).not.toContain("Connection: close");
  const stopped = registry.stop();
  expect(existsSync(SOCKET)).toBe(false);
  const answer = await ask();
  expect(answer).toStartWith("HTTP/1.1 200 OK\r\n");
  expect(answer).toContain("Connection: close\r\n");
  kept.destroy();
  await stopped;
});
