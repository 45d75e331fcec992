import { existsSync } from "node:fs";
import { mkdir, readFile, rename, rm, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";

/**
 * Creates missing links to PostgreSQL's shared libraries: the npm package's postinstall would, but Bun without
 * trustedDependencies skips it. Rejects with a message for people when `folder` is not writable.
 */
export async function linkLibraries(folder: string): Promise<void> {
  const list = join(folder, "native", "pg-symlinks.json");
  if (!existsSync(list)) return;
  const links = JSON.parse(await readFile(list, "utf8")) as { source: string; target: string }[];
  for (const { source, target } of links) {
    const path = join(folder, target);
    if (existsSync(path)) continue;
    // Replaces a dangling link; another process's link does no harm.
    const draft = `${path}.${process.pid}.${crypto.randomUUID()}`;
    try {
      await mkdir(dirname(path), { recursive: true });
      await symlink(relative(dirname(target), source), draft);
      await rename(draft, path);
    } catch (error) {
      await rm(draft, { force: true }).catch(() => {});
      throw new Error(
        `PostgreSQL's libraries are not linked, and ${dirname(path)} is not writable (${(error as NodeJS.ErrnoException).code}): start the server once as the owner of that folder`,
      );
    }
  }
}
