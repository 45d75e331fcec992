import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/**
 * The packages that lack what a file in patches/ adds to them: `bun install` applies those, no other package manager does.
 * None where there is no such folder, as in a bundle, which holds the packages it was built with.
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

/** Whether the package in `folder` has a line less than this part of a patch, which changes one file, adds. */
function lacks(folder: string, part: string): boolean {
  const [, path = ""] = /^\+\+\+ b\/(.+)$/m.exec(part) ?? [];
  const file = join(folder, path);
  if (!existsSync(file)) return false;
  const lines = new Set(readFileSync(file, "utf8").split("\n"));
  return part.split("\n").some((line) => /^\+(?!\+\+ )/.test(line) && !lines.has(line.slice(1)));
}
