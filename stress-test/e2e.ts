import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** A folder for the tests of a file. `remove` it after them. */
export async function workplace(name: string) {
  const folder = await mkdtemp(join(tmpdir(), `pessoas-${name}-test-`));
  return { folder, remove: () => rm(folder, { recursive: true }) };
}

/** Runs a script of this folder. Resolves with what it said when it has ended. */
export async function spawnScript(name: string, args: string[], env: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, "run", join(import.meta.dir, name), ...args], {
    env: { ...process.env, ...env },
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, code };
}

/**
 * The same with --json, and with --out naming a folder within `folder` that is not there yet. `json` is undefined when it
 * printed none.
 */
export async function runScript(
  name: string,
  folder: string,
  args: string[],
  env: Record<string, string> = {},
) {
  const out = join(folder, crypto.randomUUID());
  const { stdout, stderr, code } = await spawnScript(name, ["--json", "--out", out, ...args], env);
  return { code, out, stderr, json: stdout.startsWith("{") ? JSON.parse(stdout) : undefined };
}
