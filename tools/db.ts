// The database of `bun run server.ts`, by hand: bun run db:shell, bun run db:reset.
import { EmbeddedError, removeData, runningUrl, startEmbedded } from "../embedded.ts";
import { readSettings } from "../settings.ts";

const usage = `bun run db:shell [psql's options]   SQL in psql, on the embedded database or on DATABASE_URL
bun run db:reset [--yes]            removes everybody from the embedded database; asks before, or needs --yes`;

const [command, ...args] = process.argv.slice(2);
try {
  const { DATABASE_URL, DATA_DIR } = readSettings(process.env);
  if (args.includes("--help") || (command !== "shell" && command !== "reset")) console.log(usage);
  else
    process.exitCode =
      command === "shell" ? await shell(DATABASE_URL, DATA_DIR) : await reset(DATABASE_URL, DATA_DIR);
} catch (error) {
  if (!(error instanceof EmbeddedError || error instanceof RangeError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

async function shell(given: string | undefined, dataDir: string): Promise<number> {
  const psql = Bun.which("psql");
  if (!psql) {
    console.error(
      "psql is not installed. Debian, Ubuntu: apt-get install postgresql-client; Fedora: dnf install postgresql; macOS: brew install libpq",
    );
    return 1;
  }
  const url = given ?? (await runningUrl(dataDir));
  // Where no server runs, the database runs for as long as the shell does.
  const embedded = url === undefined ? await startEmbedded(dataDir) : undefined;
  const child = Bun.spawn([psql, ...args, url ?? (embedded?.url as string)], {
    stdio: ["inherit", "inherit", "inherit"],
  });
  process.on("SIGINT", () => {}); // Ctrl-C is psql's
  const code = await child.exited;
  await embedded?.stop();
  return code;
}

async function reset(given: string | undefined, dataDir: string): Promise<number> {
  if (given !== undefined) {
    throw new RangeError("DATABASE_URL: db:reset removes the embedded database only; yours stays as it is");
  }
  if (!args.includes("--yes")) {
    if (!process.stdin.isTTY) throw new RangeError(`this would remove all data in ${dataDir}: add --yes`);
    if (!/^y(es)?$/i.test(prompt(`Remove all data in ${dataDir}? [y/N]`) ?? "")) return 1;
  }
  await removeData(dataDir);
  console.log(`${dataDir} is empty`);
  return 0;
}
