import { closeSync, openSync, readFileSync, unlinkSync, watch } from "node:fs";
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
  await using sql = connect(databaseUrl);
  return await sql.unsafe(text);
}

/** A client with one connection. */
export function connect(databaseUrl: string) {
  const url = new URL(databaseUrl);
  const host = url.searchParams.get("host");
  url.searchParams.delete("host");
  const sql = postgres(url.href, {
    ...(host ? { host } : {}),
    max: 1,
    fetch_types: false, // the driver's query for them rejects unhandled if the server ends during it
    onnotice: () => {},
  });
  return Object.assign(sql, { [Symbol.asyncDispose]: () => sql.end({ timeout: 1 }) });
}

/** A registry in this process, on a free port. */
export async function serve(env: Record<string, string> = {}, limits: Limits = {}) {
  const databaseUrl = env.DATABASE_URL ?? (await newDatabase());
  const running = await start(readSettings({ PORT: "0", ...env, DATABASE_URL: databaseUrl }), limits);
  return { ...client(running.url), ...running, databaseUrl, [Symbol.asyncDispose]: running.stop };
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

/** Whether a program of this machine listens on the port. */
export async function listens(port: number): Promise<boolean> {
  const address = { hostname: "127.0.0.1", port };
  const socket = await Bun.connect({ ...address, socket: { data() {} } }).catch(() => undefined);
  socket?.end();
  return socket !== undefined;
}

/** Repeats `work` in concurrent loops until `isDone`; `n` counts the calls. */
export async function inLoops(loops: number, isDone: () => boolean, work: (n: number) => Promise<unknown>) {
  let n = 0;
  const loop = async () => {
    while (!isDone()) await work(n++);
  };
  await Promise.all(Array.from({ length: loops }, loop));
}

/** The same until stop(), which rejects with the first error of `work`. */
export function startLoops(loops: number, work: (n: number) => Promise<unknown>) {
  let stopped = false;
  const looping = inLoops(loops, () => stopped, work);
  looping.catch(() => {}); // stop() rejects with it
  return {
    async stop() {
      stopped = true;
      await looping;
    },
  };
}

/** The project's folder. */
export const project = join(import.meta.dir, "..", "..");
export const server = [process.execPath, "run", join(project, "server.ts")];

/** Starts `bun run server.ts`, or `command`, with PATH, TMPDIR, PORT=0 and `env` as its environment. */
export function beginServer(
  env: Record<string, string>,
  command = server,
  options: { cwd?: string; detached?: boolean } = {},
) {
  // To a file, because Bun may miss the end of a pipe when many processes end at once.
  const path = join(tmpdir(), `pessoas-test-${crypto.randomUUID()}.log`);
  const file = openSync(path, "a");
  const child = Bun.spawn(command, {
    ...options,
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), PORT: "0", ...env },
    stdin: "ignore",
    stdout: file,
    stderr: file,
  });
  closeSync(file);
  let whole: string | undefined;
  const soFar = () => whole ?? readFileSync(path, "utf8");
  /** Resolves with its output when it has ended. */
  const output = child.exited.then(() => {
    whole = soFar();
    unlinkSync(path);
    return whole;
  });
  /** Sends SIGTERM; resolves with its output when it has ended. */
  const stop = () => {
    child.kill();
    return output;
  };
  /** Resolves when it has written what matches, or with undefined when it has ended without. */
  const writes = (pattern: RegExp) =>
    new Promise<string | undefined>((resolve) => {
      const look = () => {
        const match = pattern.exec(soFar());
        if (!match && whole === undefined) return;
        watcher.close();
        resolve(match?.at(-1));
      };
      const watcher = watch(path, look);
      look();
      void output.then(look);
    });
  return {
    child,
    soFar,
    writes,
    /** Resolves with its URL or socket when it listens, or with undefined when it has ended. */
    listening: writes(/listening on ([^\s"]+)/),
    output: () => output,
    /** Its output, with the message alone of each logged event. Throws unless all of it is JSON. */
    async logged() {
      const events = (await output).trimEnd().split("\n");
      return events.map((line) => `${(JSON.parse(line) as { msg: string }).msg}\n`).join("");
    },
    stop,
    [Symbol.asyncDispose]: async () => void (await stop()),
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
  const { stdout, stderr, code } = await runToEnd([process.execPath, "run", join(project, path), ...args], {
    env: { PATH: process.env.PATH ?? "", TMPDIR: tmpdir(), ...env },
  });
  return { stdout, stderr, code, json: stdout.startsWith("{") ? JSON.parse(stdout) : undefined };
}

/** Runs a program to its end. Its output goes to files, as in beginServer. */
export async function runToEnd(command: string[], options: { cwd?: string; env: Record<string, string> }) {
  await using folder = await temporaryFolder();
  const files = ["stdout", "stderr"].map((name) => join(folder.path, name)) as [string, string];
  const [out, errors] = files.map((path) => Bun.file(path)) as [Bun.BunFile, Bun.BunFile];
  await Promise.all([Bun.write(out, ""), Bun.write(errors, "")]);
  const child = Bun.spawn(command, { ...options, stdin: "ignore", stdout: out, stderr: errors });
  const code = await child.exited;
  return { stdout: await out.text(), stderr: await errors.text(), code };
}

export async function temporaryFolder(name = "test") {
  const path = await mkdtemp(join(tmpdir(), `pessoas-${name}-`));
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) };
}
