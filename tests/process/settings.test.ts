import { expect, test } from "bun:test";
import { join } from "node:path";
import { describeSettings, help, readSettings } from "../../process/settings.ts";
import { project } from "../helpers/support.ts";

test("every setting has a valid default, and an empty value counts as not set", () => {
  const defaults = readSettings({});
  expect(defaults).toMatchObject({ HOST: "127.0.0.1", PORT: 9999, CACHE_BYTES: 33_554_432 });
  expect(defaults.DATABASE_URL).toBeUndefined();
  expect(readSettings({ PORT: "", DATABASE_URL: "", SOCKET: "" })).toEqual(defaults);
});

test("given settings are read, and other variables ignored", () => {
  const settings = readSettings({
    PORT: "0",
    DATABASE_URL: "postgresql://u:p@host:5432/db",
    PATH: "/bin",
    SEARCHES: "1",
  });
  expect(settings).toMatchObject({ PORT: 0, DATABASE_URL: "postgresql://u:p@host:5432/db", SEARCHES: 1 });
  expect(settings).not.toHaveProperty("PATH");
});

test.each([
  [{ PORT: "http" }, 'PORT: expected a whole number from 0 to 65535, got "http"'],
  [{ PORT: "65536" }, 'PORT: expected a whole number from 0 to 65535, got "65536"'],
  [{ PORT: "-1" }, 'PORT: expected a whole number from 0 to 65535, got "-1"'],
  [{ PORT: "1e3" }, 'PORT: expected a whole number from 0 to 65535, got "1e3"'],
  [{ CACHE_BYTES: "32MB" }, 'CACHE_BYTES: expected a whole number from 1024 to 17179869184, got "32MB"'],
  [{ SEARCHES: "0" }, 'SEARCHES: expected a whole number from 1 to 16, got "0"'],
  [{ SOCKET: `/${"x".repeat(100)}` }, "SOCKET: expected a path of at most 100 bytes"],
  [{ PORT: "x", BATCH_WINDOW_MS: "x" }, "PORT: "],
  [{ PORT: "x", BATCH_WINDOW_MS: "x" }, "BATCH_WINDOW_MS: "],
])("%j is rejected in one line that names the setting", (env, message) => {
  expect(() => readSettings(env)).toThrow(message);
  expect(() => readSettings(env)).toThrow(/^[^\n]+$/);
});

test("DATABASE_URL_READ needs DATABASE_URL", () => {
  expect(() => readSettings({ DATABASE_URL_READ: "postgres://u:secret@h/d" })).toThrow(
    /^DATABASE_URL_READ: expected DATABASE_URL, too(?!.*secret)/,
  );
});

test("the table in docs/operations.md lists all settings and defaults", async () => {
  const operations = await Bun.file(join(project, "docs", "operations.md")).text();
  const rows = [...operations.matchAll(/^\| `([A-Z_]+)` \| (.+?) \| (.+) \|$/gm)].map((row) =>
    row.slice(1).map((cell) => cell.replaceAll("`", "")),
  );
  const shown = (name: string, fallback = "–") => (name === "DATA_DIR" ? ".data beside server.ts" : fallback);
  expect(rows).toEqual(
    describeSettings().map(({ name, fallback, what }) => [name, shown(name, fallback), what]),
  );
});

test(".env.example has every setting, commented out, with its default", async () => {
  const example = await Bun.file(join(project, ".env.example")).text();
  const given = Object.fromEntries(
    [...example.matchAll(/^#?([A-Z_]+)=(.*)$/gm)].map(([, name, value]) => [name, value]),
  );
  expect(Object.keys(given)).toEqual(describeSettings().map(({ name }) => name));
  expect(example).not.toMatch(/^[^#\n]/m); // a copy changes nothing
  for (const { name, fallback } of describeSettings()) {
    if (fallback !== undefined && name !== "DATA_DIR") expect([name, given[name]]).toEqual([name, fallback]);
  }
  expect(() => readSettings(given as Record<string, string>)).not.toThrow();
});

test("--help names every setting and its default, and fits a terminal", () => {
  for (const { name, fallback } of describeSettings()) {
    expect(help()).toContain(`\n  ${name} `);
    if (fallback) expect(help()).toContain(`default: ${fallback}\n`);
  }
  const lines = help()
    .split("\n")
    .filter((line) => !line.includes("default: ")); // a path may be longer
  expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(100);
});
