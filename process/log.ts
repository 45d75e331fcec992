import { isatty } from "node:tty";

export const levels = ["debug", "info", "warn", "error"] as const;
type Level = (typeof levels)[number];
/** Fields of an event. No client's data. */
type Fields = Record<string, string | number | undefined>;

let minLevel: Level = "info";

export function setLevel(level: Level): void {
  minLevel = level;
}

export const logs = (level: Level): boolean => levels.indexOf(level) >= levels.indexOf(minLevel);

export const debug = (message: string, fields?: Fields): void => write("debug", message, fields);
export const info = (message: string, fields?: Fields): void => write("info", message, fields);
export const warn = (message: string, fields?: Fields): void => write("warn", message, fields);
export const error = (message: string, fields?: Fields): void => write("error", message, fields);

/** debug and info go to standard output, warn and error to standard error. */
function write(level: Level, message: string, fields: Fields = {}): void {
  if (!logs(level)) return;
  const [print, file] = level === "debug" || level === "info" ? [console.log, 1] : [console.error, 2];
  print(isatty(file) ? asText(message, fields) : asJson(level, message, fields));
}

export function asJson(level: Level, msg: string, fields: Fields): string {
  return escaped(JSON.stringify({ time: new Date().toISOString(), level, msg, ...fields }));
}

/** Indents further lines, so they cannot pass for another event. */
export function asText(message: string, fields: Fields): string {
  const pairs = Object.entries(fields).filter(([, value]) => value !== undefined);
  const text = [message, ...pairs.map(([name, value]) => `${name}=${value}`)].join(" ");
  return text.trimEnd().split("\n").map(escaped).join("\n    ");
}

// Characters that end a line, control a terminal or reorder text.
const unprintable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const escaped = (text: string) =>
  text.replace(unprintable, (found) =>
    found
      .split("") // UTF-16 units
      .map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
      .join(""),
  );

/** What may be logged of an unexpected error. Not its message, which may quote a client. */
export function trace(thrown: unknown): Fields {
  if (!(thrown instanceof Error)) return { error: typeof thrown };
  const { name, message, stack = "", code, query } = thrown as Error & { code?: unknown; query?: unknown };
  const end = message === "" ? -1 : stack.lastIndexOf(message);
  return {
    error: name,
    code: typeof code === "string" ? code : undefined,
    query: typeof query === "string" ? query.slice(0, 200) : undefined,
    // A stack starts with the message; else another one may be there.
    stack: end === -1 ? undefined : stack.slice(end + message.length).trim(),
  };
}
