// Fuzzes the contest's topology with schemathesis, by /openapi.json. Needs Docker with Compose, and Python.
import { existsSync } from "node:fs";
import { join } from "node:path";
import { readArguments, wholeOf } from "../../tools/arguments.ts";
import { abortedBySignals, topology } from "../helpers/topology.ts";

const usage = `Usage: bun run test:fuzz [--seed S] [--seconds N]

Sends valid and invalid requests by /openapi.json through nginx, with all checks of schemathesis. Each answer must have a
status and a form of the document, and no answer may be a 5xx. Valid requests must be accepted, and invalid ones
rejected. Exits with 1 otherwise. The topology is a new project on a free port, and is removed afterwards.

  --seed S       seed of the requests, a whole number; default 1
  --seconds N    length of the run, default 40
  -h, --help     this text

Schemathesis is installed once, into node_modules/.cache. Needs Python 3.10 or newer with venv.`;

const root = join(import.meta.dir, "..", "..");
const requirements = join(import.meta.dir, "requirements.txt");

const { seed, seconds } = readArguments(
  usage,
  { seed: { type: "string", default: "1" }, seconds: { type: "string", default: "40" } },
  ({ seed, seconds }) => ({ seed: wholeOf("seed", seed, 1), seconds: wholeOf("seconds", seconds, 1) }),
);
const abandoned = abortedBySignals();
let status = 1;
const { url, up, compose, remove } = topology(abandoned.signal, { name: "fuzz" });
try {
  const schemathesis = await install();
  await up();
  const config = join(import.meta.dir, "schemathesis.toml");
  const options = `--checks all --seed ${seed} --max-time ${seconds} --generation-database none --request-timeout 5`;
  status = await run([
    ...[schemathesis, "--config-file", config, "run", `${url}/openapi.json`],
    ...options.split(" "),
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
