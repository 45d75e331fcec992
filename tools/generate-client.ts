// Writes contract/client.d.ts, the API's types for openapi-fetch: bun run client. Needs npm's registry.
import { join } from "node:path";
import { openApi } from "../contract/openapi.ts";
import { temporaryFolder } from "../tests/helpers/support.ts";
import { readPositionals } from "./arguments.ts";

readPositionals(
  `bun run client   writes contract/client.d.ts from contract/openapi.ts; needs npm's registry`,
);

const target = join(import.meta.dir, "..", "contract", "client.d.ts");
await using folder = await temporaryFolder("client");
const [document, types] = [join(folder.path, "openapi.json"), join(folder.path, "api.d.ts")];
await Bun.write(document, openApi());
// Not a dependency: it needs TypeScript 5.
const packages = ["--package=openapi-typescript@7.13.0", "--package=typescript@5.9.3"];
const { exitCode } = Bun.spawnSync(
  ["npx", "--yes", ...packages, "openapi-typescript", document, "--output", types],
  { cwd: folder.path, stdout: "inherit", stderr: "inherit" },
);
if (exitCode !== 0) throw new Error("openapi-typescript failed");
const hash = new Bun.CryptoHasher("sha256").update(openApi()).digest("hex");
await Bun.write(
  target,
  `// Made by "bun run client" from /openapi.json ${hash}\n${await Bun.file(types).text()}`,
);
