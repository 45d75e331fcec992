import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * Names of the packages that lack their patch in patches/, which only `bun install` applies. Empty in a bundle, which
 * has no such folder.
 */
export function unpatched(project = join(import.meta.dir, "..")): string[] {
  const patches = join(project, "patches");
  if (!existsSync(patches)) return [];
  return readdirSync(patches)
    .map((file) => ({
      name: file.slice(0, file.lastIndexOf("@")),
      patch: readFileSync(join(patches, file), "utf8"),
    }))
    .filter(({ name, patch }) =>
      patch.split("\ndiff ").some((part) => lacks(join(project, "node_modules", name), part)),
    )
    .map(({ name }) => name);
}

/** Whether the package in `folder` lacks a line that this part of a patch, for one file, adds. */
function lacks(folder: string, part: string): boolean {
  const [, path = ""] = /^\+\+\+ b\/(.+)$/m.exec(part) ?? [];
  const file = join(folder, path);
  if (!existsSync(file)) return false;
  const lines = new Set(readFileSync(file, "utf8").split("\n"));
  return part.split("\n").some((line) => /^\+(?!\+\+ )/.test(line) && !lines.has(line.slice(1)));
}
