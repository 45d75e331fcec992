import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** Packages that lack their patch, which only `bun install` applies. A bundle has no folder of patches. */
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

/** Whether a line that this part of a patch adds, for one file, is missing. */
function lacks(folder: string, part: string): boolean {
  const [, path = ""] = /^\+\+\+ b\/(.+)$/m.exec(part) ?? [];
  const file = join(folder, path);
  if (!existsSync(file)) return false;
  const lines = new Set(readFileSync(file, "utf8").split("\n"));
  return part.split("\n").some((line) => /^\+(?!\+\+ )/.test(line) && !lines.has(line.slice(1)));
}
