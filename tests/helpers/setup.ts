import { afterAll } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { plugin } from "bun";
import { startEmbedded } from "../../database/embedded.ts";

// A test or a hook may take a minute, in every file: on a busy machine Bun's 5 s are too few. In a preload
// setDefaultTimeout reaches the first file alone (oven-sh/bun#43787), and bunfig.toml has no setting for it (#7789).
plugin({
  name: "a minute for each test",
  setup: (build) => {
    build.onLoad({ filter: /\.(test|e2e|browser)\.ts$/ }, async ({ path }) => ({
      loader: "ts",
      contents: `import { setDefaultTimeout as $timeout } from "bun:test"; $timeout(60_000); ${await Bun.file(path).text()}`,
    }));
  },
});

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
