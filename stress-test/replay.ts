import { existsSync } from "node:fs";
import { readArguments, wholeOf } from "../tools/arguments.ts";
import { progressBar } from "../tools/progress.ts";
import { expectAnswers, readColumn } from "./data/reference-contract.ts";
import { generator } from "./load/generator.ts";
import type { Answer } from "./load/http.ts";

const usage = `Sends a file of payloads to POST /pessoas and compares every answer with the contract.

  bun run stress-test/replay.ts FILE.tsv [options]

  FILE.tsv            as generate.ts writes it: the first column is "payload" and has a request body in each line
  --url URL           where the registry listens       (default http://127.0.0.1:9999)
  --concurrency N     requests in flight, 1 to 1000    (default 32)
  --json              the result as JSON on standard output

The registry must be empty at the start. Exit code: 0 all was as expected, 1 something was not, 2 for wrong usage.`;

const { file, url, concurrency, json } = readArguments(
  usage,
  {
    url: { type: "string", default: "http://127.0.0.1:9999" },
    concurrency: { type: "string", default: "32" },
    json: { type: "boolean", default: false },
  },
  ({ url, concurrency, json }, [file]) => {
    if (!file) throw new RangeError("expected one file; see --help");
    if (!URL.canParse(url)) throw new RangeError(`--url: expected a URL, got "${url}"`);
    if (!existsSync(file)) throw new RangeError(`there is no file ${file}`);
    return { file, url, concurrency: wholeOf("concurrency", concurrency, 1, 1000), json };
  },
  1,
);

const text = await Bun.file(file).text();
const [header = ""] = text.split(/\r?\n/, 1);
if (header.split("\t", 1)[0] !== "payload") {
  console.error(
    `${file}: expected "payload" as the first column of the first line, got "${header.slice(0, 100)}"`,
  );
  process.exit(2);
}
const bodies = readColumn(text);

async function count(): Promise<number> {
  const response = await fetch(new URL("/contagem-pessoas", url));
  if (!response.ok) throw new Error(`GET /contagem-pessoas answered ${response.status}`);
  return Number(await response.text());
}

/** The number of each answer. */
function tally(answers: readonly number[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

/** Sends every body once and returns the answers in the bodies' order; 0 stands for no answer. */
async function replay(): Promise<number[]> {
  const answers: number[] = new Array(bodies.length).fill(0);
  const bar = progressBar(bodies.length);
  const load = generator({ url, connections: concurrency });
  const left = bodies.entries();
  const { answered, results } = load.closed({
    users: concurrency,
    next() {
      const { value } = left.next();
      if (!value) return undefined;
      const [i, body] = value;
      const check = ({ status }: Answer) => {
        answers[i] = status;
        return "";
      };
      return { kind: "create", method: "POST", path: "/pessoas", body, check };
    },
  });
  const updating = setInterval(() => bar.update(results.length), 100);
  await answered;
  clearInterval(updating);
  load.close();
  bar.stop();
  return answers;
}

try {
  const before = await count();
  const started = performance.now();
  const answers = await replay();
  const seconds = (performance.now() - started) / 1000;
  const after = await count();

  const expected = expectAnswers(bodies).map(({ status }) => status);
  const differences: string[] = [];
  if (before !== 0) differences.push(`the registry was not empty: it had ${before} persons`);
  const [got, wanted] = [tally(answers), tally(expected)];
  for (const status of new Set([...Object.keys(got), ...Object.keys(wanted)])) {
    const [n, expectedN] = [got[status] ?? 0, wanted[status] ?? 0];
    const name = status === "0" ? "no answer" : status;
    if (n !== expectedN) differences.push(`${name}: expected ${expectedN}, got ${n}`);
  }
  // With several requests in flight, any of those with the same apelido may arrive first.
  if (concurrency === 1) {
    const wrong = answers.findIndex((answer, i) => answer !== expected[i]);
    if (wrong !== -1) {
      differences.push(
        `line ${wrong + 2}: expected ${expected[wrong]}, got ${answers[wrong]}: ${bodies[wrong]}`,
      );
    }
  }
  const created = wanted[201] ?? 0;
  if (after - before !== created) {
    differences.push(`GET /contagem-pessoas: expected ${before + created}, got ${after}`);
  }

  if (json) {
    console.log(
      JSON.stringify({ sent: bodies.length, concurrency, seconds, answers: got, count: after, differences }),
    );
  } else {
    const line = Object.entries(got).map(([status, n]) => `${n} × ${status === "0" ? "no answer" : status}`);
    console.log(
      `${bodies.length} sent in ${seconds.toFixed(1)} s: ${line.join(", ")}; the count is ${after}`,
    );
    console.log(differences.length === 0 ? "all as expected" : differences.join("\n"));
  }
  process.exit(differences.length === 0 ? 0 : 1);
} catch (error) {
  console.error(`${url}: ${(error as Error).message}`);
  process.exit(1);
}
