import { startEmbedded } from "../database/embedded.ts";
import { server, spawnServer, temporaryFolder } from "../tests/helpers/support.ts";
import { readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { table } from "./measure/format.ts";
import { spreadOf } from "./measure/statistics.ts";

const usage = `Usage: bun run bench:start [OPTIONS] [COMMAND...]

Measures the milliseconds from the start of a server until its /readyz answers 200, with a PostgreSQL that is running
("there") and with the embedded one. Both databases are temporary. The first start, which creates the schema or the
embedded database, is shown separately.

  COMMAND      the command that starts the server (default: bun run server.ts)
  --only NAME  there, or embedded (default: both; an executable has no embedded one)
  --times N    starts of each kind after the first, 1 to 100 (default 7)
  --json       JSON instead of the table
  -h, --help   this text

Exit code: 0 all starts succeeded, 2 one failed.`;

const kinds = ["there", "embedded"] as const;

/** The duration of one start, in ms. */
async function start(command: string[], env: Record<string, string>): Promise<number> {
  const began = performance.now();
  const { url, child, output, stop } = await spawnServer(env, command);
  if (url === undefined) throw new Error(`${command.join(" ")} has ended: ${(await output()).trim()}`);
  try {
    while (!(await fetch(`${url}/readyz`)).ok && child.exitCode === null);
    return performance.now() - began;
  } finally {
    await stop();
  }
}

async function main(): Promise<void> {
  const { positionals, ...values } = readArguments(
    usage,
    {
      only: { type: "string" },
      times: { type: "string", default: "7" },
      json: { type: "boolean", default: false },
    },
    (values, positionals) => ({ ...values, positionals }),
    Number.POSITIVE_INFINITY,
  );
  const times = wholeOf("times", values.times, 1, 100);
  const chosen = kinds.filter((kind) => kind === (values.only ?? kind));
  if (chosen.length === 0)
    throw new RangeError(`--only: expected ${kinds.join(" or ")}, got "${values.only}"`);
  const command = positionals.length > 0 ? positionals : server;
  if (!Bun.which(command[0] as string)) throw new RangeError(`there is no program ${command[0]}; see --help`);

  await using there = await temporaryFolder();
  await using own = await temporaryFolder();
  const database = await startEmbedded(there.path, () => {});
  const starts: { database: string; firstMs: number; ms: number[] }[] = [];
  try {
    for (const kind of chosen) {
      const env: Record<string, string> =
        kind === "there" ? { DATABASE_URL: database.url } : { DATA_DIR: own.path };
      const firstMs = await start(command, env);
      const ms: number[] = [];
      while (ms.length < times) ms.push(await start(command, env));
      starts.push({ database: kind, firstMs, ms });
    }
  } finally {
    await database.stop();
  }
  if (values.json) return console.log(JSON.stringify(starts, null, 2));
  const rows = starts.map(({ database, firstMs, ms }) => {
    const { median, min, max } = spreadOf(ms);
    return [database, ...[firstMs, median, min, max].map((value) => value.toFixed(0))];
  });
  console.log(table([["PostgreSQL", "first, ms", "median", "lowest", "highest"], ...rows]).join("\n"));
}

if (import.meta.main) await runScript(main);
