import { parseArgs } from "node:util";
import { Presets, SingleBar } from "cli-progress";
import { expectAnswers, readColumn } from "./data/contract.ts";

const usage = `Sends a file of payloads to POST /pessoas and compares every answer with the contract.

  bun run stress-test/replay.ts FILE.tsv [options]

  FILE.tsv            first line: "payload", alone or before further columns, as generate.ts writes it; then one body a
                      line in that column, sent as it stands
  --url URL           where the registry listens       (default http://127.0.0.1:9999)
  --concurrency N     requests in flight, 1 to 1000    (default 32)
  --json              the result as JSON on standard output

The registry must be empty at the start. Exit status: 0 when all is as expected, 1 when not, 2 for wrong usage.`;

function usageError(message: string): never {
  console.error(`${message}; see --help`);
  process.exit(2);
}

function readArguments() {
  try {
    return parseArgs({
      allowPositionals: true,
      options: {
        url: { type: "string", default: "http://127.0.0.1:9999" },
        concurrency: { type: "string", default: "32" },
        json: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    });
  } catch (error) {
    usageError((error as Error).message);
  }
}

const { values, positionals } = readArguments();
if (values.help) {
  console.log(usage);
  process.exit(0);
}
const [file] = positionals;
if (!file || positionals.length > 1) usageError("expected one file");
const concurrency = Number(values.concurrency);
if (!Number.isInteger(concurrency) || concurrency < 1 || concurrency > 1000) {
  usageError(`--concurrency: expected a whole number from 1 to 1000, got "${values.concurrency}"`);
}
if (!URL.canParse(values.url)) usageError(`--url: expected a URL, got "${values.url}"`);
if (!(await Bun.file(file).exists())) usageError(`there is no file ${file}`);

const text = await Bun.file(file).text();
const [header = ""] = text.split(/\r?\n/, 1);
if (header.split("\t", 1)[0] !== "payload") {
  usageError(
    `${file}: expected "payload" as the first column of the first line, got "${header.slice(0, 100)}"`,
  );
}
const bodies = readColumn(text);

async function count(): Promise<number> {
  const response = await fetch(new URL("/contagem-pessoas", values.url));
  if (!response.ok) throw new Error(`GET /contagem-pessoas answered ${response.status}`);
  return Number(await response.text());
}

/** How often each answer occurs. */
function tally(answers: readonly number[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const answer of answers) counts[answer] = (counts[answer] ?? 0) + 1;
  return counts;
}

/** Sends every body once and returns the answers in the bodies' order; 0 stands for no answer. */
async function replay(): Promise<number[]> {
  const answers: number[] = new Array(bodies.length).fill(0);
  const bar = new SingleBar({ stream: process.stderr, hideCursor: true }, Presets.shades_classic);
  if (process.stderr.isTTY) bar.start(bodies.length, 0);
  let next = 0;
  async function worker() {
    for (let i = next++; i < bodies.length; i = next++) {
      const request = fetch(new URL("/pessoas", values.url), {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: bodies[i] as string,
      });
      answers[i] = await request.then(
        async (response) => {
          await response.arrayBuffer();
          return response.status;
        },
        () => 0,
      );
      bar.increment();
    }
  }
  await Promise.all(Array.from({ length: concurrency }, worker));
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
  if (before !== 0) differences.push(`the registry was not empty: it held ${before}`);
  const [got, wanted] = [tally(answers), tally(expected)];
  for (const status of new Set([...Object.keys(got), ...Object.keys(wanted)])) {
    const [n, expectedN] = [got[status] ?? 0, wanted[status] ?? 0];
    const name = status === "0" ? "no answer" : status;
    if (n !== expectedN) differences.push(`${name}: expected ${expectedN}, got ${n}`);
  }
  // With requests in flight side by side, any one of those who share an apelido may be the first.
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

  if (values.json) {
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
  console.error(`${values.url}: ${(error as Error).message}`);
  process.exit(1);
}
