import { expect } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { readFile, watch } from "node:fs/promises";
import { join } from "node:path";
import { client, type Found, newPessoa } from "./requests.ts";
import { project, runToEnd } from "./support.ts";

/** Runs TypeScript in the project's folder to its end. */
export const runCode = (text: string, env: Record<string, string> = {}) =>
  runToEnd([process.execPath, "-e", text], { cwd: project, env: { PATH: process.env.PATH ?? "", ...env } });

/** Resolves when `folder` has a file whose name begins with `prefix`. */
export async function appears(folder: string, prefix: string) {
  const gaveUp = new AbortController();
  const events = watch(folder, { signal: gaveUp.signal });
  if (readdirSync(folder).some((name) => name.startsWith(prefix))) return gaveUp.abort();
  for await (const { filename } of events) if (filename?.startsWith(prefix)) return;
}

/** The ids of processes whose command line contains `folder`. */
export function processesOn(folder: string): string[] {
  const commandOf = (pid: string) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8");
    } catch {
      return "";
    }
  };
  return readdirSync("/proc").filter((pid) => /^\d+$/.test(pid) && commandOf(pid).includes(folder));
}

/** The process id of the embedded PostgreSQL in `dataDir`. */
export async function postmasterPid(dataDir: string): Promise<number> {
  return Number((await readFile(join(dataDir, "pg18", "postmaster.pid"), "utf8")).split("\n")[0]);
}

/** Sends creates one after the other until the server is gone; resolves with the acknowledged persons. */
export async function createUntilGone(url: string, sent: (acknowledged: number) => void): Promise<Found[]> {
  const { post } = client(url);
  const acknowledged: Found[] = [];
  for (;;) {
    const response = await post(newPessoa()).catch(() => undefined);
    if (!response) return acknowledged;
    const answer = await response.json().catch(() => undefined);
    if (response.status === 201 && answer) acknowledged.push(answer as Found);
    sent(acknowledged.length);
  }
}

/** Expects that all these persons can be read, and that the count includes them. */
export async function expectAll(url: string, persons: Found[]) {
  const { get, count } = client(url);
  for (const person of persons) expect(await (await get(`/pessoas/${person.id}`)).json()).toEqual(person);
  expect(await count()).toBeGreaterThanOrEqual(persons.length);
}
