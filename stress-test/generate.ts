import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { expectAnswers, expectedFor, readColumn } from "./data/contract.ts";
import { payloadsFile, renderFiles, termsFile } from "./data/payloads.ts";

const usage = `Usage: generate.ts [--seed N] [--rows N] [--terms N] --out DIR
       generate.ts --expect FILE.tsv [--first N]

Makes ${payloadsFile}, ${termsFile} and expected.json in the contest's distribution. The same
numbers give the same bytes.

  --seed N           any whole number from 0 to 4294967295 (default 1)
  --rows N           number of payloads (default 54700: a run sends about 54,635)
  --terms N          number of search terms (default 5000)
  --out DIR          folder for the files, made when it is missing
  --expect FILE.tsv  makes nothing; prints as JSON what an empty registry answers to the payloads in the
                     first column of FILE (its first line is the header), sent in order
  --first N          only the first N of them (default all)
  -h, --help         this text`;

async function main(): Promise<void> {
  const values = readArguments(
    usage,
    {
      seed: { type: "string", default: "1" },
      rows: { type: "string", default: "54700" },
      terms: { type: "string", default: "5000" },
      out: { type: "string" },
      expect: { type: "string" },
      first: { type: "string" },
    },
    (values) => values,
  );
  if (values.expect !== undefined) {
    const payloads = readColumn(await Bun.file(values.expect).text());
    const first = values.first === undefined ? payloads.length : wholeOf("first", values.first, 0);
    const answers = expectedFor(expectAnswers(payloads), first);
    return console.log(JSON.stringify({ rows: first, answers, maximumCount: answers[201] }, null, 2));
  }
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
