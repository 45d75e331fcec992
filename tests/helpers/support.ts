import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import postgres from "postgres";
import { readSettings } from "../../process/settings.ts";
import { type Limits, start } from "../../server.ts";
import { client } from "./requests.ts";

export type Registry = Awaited<ReturnType<typeof serve>>;

/** The URL of a new, empty database on the server under test. */
export async function newDatabase(): Promise<string> {
  const url = new URL(process.env.DATABASE_URL as string);
  const name = `t${crypto.randomUUID().replaceAll("-", "")}`;
  await query(url.href, `create database ${name}`);
  url.pathname = `/${name}`;
  return url.href;
}

/** Runs SQL on the database. */
export async function query(databaseUrl: string, text: string) {
  const sql = connect(databaseUrl);
  try {
    return await sql.unsafe(text);
  } finally {
    await sql.end();
  }
}

/** A client with one connection. */
export function connect(databaseUrl: string): postgres.Sql {
  const url = new URL(databaseUrl);
  const host = url.searchParams.get("host");
  url.searchParams.delete("host");
  return postgres(url.href, { ...(host ? { host } : {}), max: 1, onnotice: () => {} });
}

/** A registry in this process, on a free port. */
export async function serve(env: Record<string, string> = {}, limits: Limits = {}) {
  const databaseUrl = env.DATABASE_URL ?? (await newDatabase());
  const running = await start(readSettings({ PORT: "0", ...env, DATABASE_URL: databaseUrl }), limits);
  return { ...client(running.url), ...running, databaseUrl };
}

/** Two instances on one new database. */
export async function twins() {
  const one = await serve();
  const other = await serve({ DATABASE_URL: one.databaseUrl });
  const both = [one, other];
  const stop = async () => void (await Promise.all(both.map((registry) => registry.stop())));
  return { one, other, both, stop, url: one.databaseUrl, [Symbol.asyncDispose]: stop };
}

/** Resolves when `holds` does. */
export async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await Bun.sleep(10);
}

/** The project's folder. */
export const project = join(import.meta.dir, "..", "..");
export const server = [process.execPath, "run", join(project, "server.ts")];

/** Starts `bun run server.ts`, or `command`, with PATH, TMPDIR, PORT=0 and `env` as its environment. */
export function beginServer(env: Record<string, string>, command = server) {
  const child = Bun.spawn(command, {
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  let output = "";
  const { promise: listening, resolve } = Promise.withResolvers<string | undefined>();
  const collect = async (stream: ReadableStream<Uint8Array>) => {
    const decoder = new TextDecoder();
    for await (const chunk of stream) {
      output += decoder.decode(chunk, { stream: true });
      const url = /listening on ([^\s"]+)/.exec(output)?.[1];
      if (url) resolve(url);
    }
  };
  const ended = Promise.all([child.exited, collect(child.stdout), collect(child.stderr)]);
  void ended.then(() => resolve(undefined));
  return {
    child,
    /** Resolves with its URL or socket when it listens, or with undefined when it has ended. */
    listening,
    soFar: () => output,
    /** Resolves with its output when it has ended. */
    async output() {
      await ended;
      return output;
    },
    /** The same, with the message alone of each logged event. Throws unless all of its output is JSON. */
    async logged() {
      await ended;
      const events = output.trimEnd().split("\n") as string[];
      return events.map((line) => `${(JSON.parse(line) as { msg: string }).msg}\n`).join("");
    },
  };
}

/** beginServer, resolved when the server listens or has ended; then `url` is undefined. */
export async function spawnServer(env: Record<string, string>, command = server) {
  const begun = beginServer(env, command);
  return { ...begun, url: await begun.listening };
}

/**
 * Runs a script of the project to its end. `path`: from the project's folder; environment: PATH, TMPDIR and `env`.
 * `json` is undefined unless it printed a JSON object.
 */
export async function runScript(path: string, args: string[] = [], env: Record<string, string> = {}) {
  const child = Bun.spawn([process.execPath, "run", join(project, path), ...args], {
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), ...env },
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, code] = await Promise.all([child.stdout.text(), child.stderr.text(), child.exited]);
  return { stdout, stderr, code, json: stdout.startsWith("{") ? JSON.parse(stdout) : undefined };
}

export async function temporaryFolder() {
  const path = await mkdtemp(join(tmpdir(), "pessoas-test-"));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
