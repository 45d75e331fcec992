// Fuzzes the contest's topology with schemathesis, by /openapi.json. Needs Docker with Compose, and Python.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { topology } from "../contest/topology.ts";

const usage = `Usage: bun run test:fuzz [--seed S] [--seconds N]

Sends what /openapi.json allows, and what it does not, through nginx, with all checks of schemathesis: every answer must
be one that the document names, of its form, never a 5xx; what is valid must be accepted and what is not refused.
Exits with 1 otherwise. It uses a port and a project name of its own, and removes them.

  --seed S       whole number that decides the requests, default 1
  --seconds N    length of the run, default 40
  -h, --help     this text

Schemathesis is installed once, into node_modules/.cache. Needs Python 3.10 or newer with venv.`;

const root = join(import.meta.dir, "..", "..");
const requirements = join(import.meta.dir, "requirements.txt");

const { seed, seconds } = readArguments();
const abandoned = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => abandoned.abort(new Error(signal)));
}
let status = 1;
const { url, up, compose, remove } = topology(abandoned.signal, { name: "fuzz" });
try {
  const schemathesis = await install();
  await up();
  status = await run([
    ...[
      schemathesis,
      "--config-file",
      join(import.meta.dir, "schemathesis.toml"),
      "run",
      `${url}/openapi.json`,
      "--checks",
      "all",
      "--seed",
      seed,
    ],
    ...["--max-time", seconds, "--generation-database", "none", "--request-timeout", "5"],
  ]);
  const crashed = await compose("ps", "--all", "--quiet", "--status", "exited");
  if (crashed !== "") {
    console.error("a container has ended");
    status = 1;
  }
} catch (error) {
  console.error((error as Error).message);
} finally {
  await remove();
}
process.exit(status);

/** The path of schemathesis, in a Python environment for this version of requirements.txt. */
async function install(): Promise<string> {
  const hash = Bun.hash.wyhash(await Bun.file(requirements).bytes()).toString(36);
  const folder = join(root, "node_modules", ".cache", `schemathesis-${hash}`);
  const done = join(folder, "done");
  if (!existsSync(done)) {
    for (const command of [
      ["python3", "-m", "venv", "--clear", folder],
      [join(folder, "bin", "pip"), "install", "--quiet", "--disable-pip-version-check", "-r", requirements],
    ]) {
      if ((await run(command)) !== 0) throw new Error(`${command.join(" ")} has failed`);
    }
    await Bun.write(done, "");
  }
  return join(folder, "bin", "schemathesis");
}

async function run(command: string[]): Promise<number> {
  abandoned.signal.throwIfAborted();
  const child = Bun.spawn(command, {
    cwd: root,
    signal: abandoned.signal,
    stdout: "inherit",
    stderr: "inherit",
  });
  return await child.exited;
}

function readArguments() {
  try {
    const { values } = parseArgs({
      options: {
        seed: { type: "string", default: "1" },
        seconds: { type: "string", default: "40" },
        help: { type: "boolean", short: "h" },
      },
    });
    if (values.help) {
      console.log(usage);
      process.exit(0);
    }
    for (const name of ["seed", "seconds"] as const) {
      if (!/^[1-9]\d*$/.test(values[name])) {
        throw new RangeError(`--${name}: expected a positive integer, got "${values[name]}"`);
      }
    }
    return values;
  } catch (error) {
    console.error((error as Error).message);
    process.exit(2);
  }
}
