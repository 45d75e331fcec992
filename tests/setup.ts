import { afterAll, setDefaultTimeout } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startEmbedded } from "../embedded.ts";

// What a test waits for is a disk and other processes: on a busy machine 1,500 durable creates take longer than the 5 s of
// the default.
setDefaultTimeout(60_000);

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
