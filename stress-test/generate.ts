import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { payloadsFile, renderFiles, termsFile } from "./data/payloads.ts";

const usage = `Usage: generate.ts [--seed N] [--rows N] [--terms N] --out DIR

Writes ${payloadsFile}, ${termsFile} and expected.json in the contest's distribution. The same
options give the same bytes.

  --seed N           any whole number from 0 to 4294967295 (default 1)
  --rows N           number of payloads (default 54700: a run sends about 54,635)
  --terms N          number of search terms (default 5000)
  --out DIR          folder for the files, created if it is missing
  -h, --help         this text`;

async function main(): Promise<void> {
  const values = readArguments(usage, {
    seed: { type: "string", default: "1" },
    rows: { type: "string", default: "54700" },
    terms: { type: "string", default: "5000" },
    out: { type: "string" },
  });
  if (values.out === undefined) throw new RangeError("--out: expected a folder; see --help");
  const files = renderFiles(
    wholeOf("seed", values.seed, 0, 2 ** 32 - 1),
    wholeOf("rows", values.rows, 0),
    wholeOf("terms", values.terms, 0),
  );
  await mkdir(values.out, { recursive: true });
  for (const [name, text] of Object.entries(files)) await Bun.write(join(values.out, name), text);
  console.log(files["expected.json"]?.trimEnd());
}

if (import.meta.main) await runScript(main);
