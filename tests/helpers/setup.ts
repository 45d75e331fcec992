import { afterAll } from "bun:test";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { plugin } from "bun";
import { startEmbedded } from "../../database/embedded.ts";

// A test or hook may take a minute, because Bun's 5 s are too short on a busy machine. In a preload setDefaultTimeout
// affects the first file only (oven-sh/bun#43787), and bunfig.toml has no setting for it (#7789).
plugin({
  name: "a minute for each test",
  setup: (build) => {
    build.onLoad({ filter: /\.(test|e2e|browser)\.ts$/ }, async ({ path }) => ({
      loader: "ts",
      contents: `import { setDefaultTimeout as $timeout } from "bun:test"; $timeout(60_000); ${await Bun.file(path).text()}`,
    }));
  },
});

// One PostgreSQL for the whole run: DATABASE_URL, or an embedded one.
if (!process.env.DATABASE_URL) {
  const folder = await mkdtemp(join(tmpdir(), "pessoas-test-"));
  const embedded = await startEmbedded(folder, () => {});
  process.env.DATABASE_URL = embedded.url;
  process.on("exit", embedded.kill);
  afterAll(async () => {
    await embedded.stop();
    await rm(folder, { recursive: true, force: true });
  }, 60_000); // PostgreSQL first writes its buffers to disk
}
