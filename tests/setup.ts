import { afterAll } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEmbedded } from "../embedded.ts";

// One real PostgreSQL for the whole run: the one named by DATABASE_URL, else an embedded one of its own.
if (!process.env.DATABASE_URL) {
  const folder = await mkdtemp(join(tmpdir(), "pessoas-test-"));
  const embedded = await startEmbedded(folder, () => {});
  process.env.DATABASE_URL = embedded.url;
  process.on("exit", embedded.kill);
  afterAll(async () => {
    await embedded.stop();
    await rm(folder, { recursive: true, force: true });
  }, 60_000); // what is in its buffers goes to the disk first
}
