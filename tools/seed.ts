// Creates fictitious Brazilians through the API: bun run seed 1000
import { parseArgs } from "node:util";
import { fakerPT_BR as faker } from "@faker-js/faker";
import { inParallel } from "./in-parallel.ts";

const usage = `bun run seed [N]            creates N people (1000)
  --url http://127.0.0.1:9999   where the registry is
  --concurrency 8               requests in flight at once
  --seed 1                      one seed gives the same people every time; existing ones are not created again
  --json                        the result as JSON`;

const languages =
  "Bun C C# C++ Clojure Elixir Erlang Go Java JavaScript Kotlin Node PHP Python Ruby Rust Scala Swift TypeScript Zig";
const databases = "Cassandra MongoDB MySQL Oracle Postgres Redis SQLite";

if (import.meta.main) {
  await main().catch((error: unknown) => {
    console.error((error as Error).message);
    process.exitCode = 1;
  });
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: { type: "string", default: "http://127.0.0.1:9999" },
      concurrency: { type: "string", default: "8" },
      seed: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) return console.log(usage);
  if (positionals.length > 1)
    throw new RangeError(`N: expected one number, got ${positionals.length}; see --help`);
  const wanted = positiveInt("N", positionals[0] ?? "1000");
  const concurrency = positiveInt("--concurrency", values.concurrency);
  if (values.seed !== undefined) faker.seed(positiveInt("--seed", values.seed));
  const target = new URL("/pessoas", values.url);

  const started = performance.now();
  let [created, taken] = [0, 0];
  await inParallel(concurrency, "creating people", new Array<undefined>(wanted), async () => {
    const response = await send(target, JSON.stringify(somebody()));
    if (response.status === 201) created++;
    else if (response.status === 422) taken++;
    else throw new Error(`${target}: ${response.status} ${await response.text()}`);
    await response.body?.cancel();
  });
  const seconds = Number(((performance.now() - started) / 1000).toFixed(1));
  console.log(
    values.json
      ? JSON.stringify({ created, taken, seconds })
      : `${created} people created in ${seconds} s${taken ? `; ${taken} existed already` : ""}`,
  );
}

async function send(url: URL, body: string): Promise<Response> {
  const request = { method: "POST", headers: { "Content-Type": "application/json" }, body };
  try {
    return await fetch(url, request);
  } catch {
    throw new Error(`no answer from ${url.origin}: start the registry, or give its address with --url`);
  }
}

/** A body for POST /pessoas, which follows from `faker.seed`. */
export function somebody() {
  const [firstName, lastName] = [faker.person.firstName(), faker.person.lastName()];
  const stack = [
    ...faker.helpers.arrayElements(languages.split(" "), { min: 1, max: 4 }),
    ...faker.helpers.arrayElements(databases.split(" "), { min: 0, max: 2 }),
  ];
  return {
    // With a number, because there are more people than names.
    apelido: `${faker.internet.username({ firstName, lastName }).slice(0, 25)}${faker.number.int(999_999)}`,
    nome: `${firstName} ${lastName} ${faker.person.lastName()}`.slice(0, 100),
    nascimento: faker.date.birthdate({ mode: "age", min: 16, max: 80 }).toISOString().slice(0, 10),
    stack: faker.helpers.maybe(() => stack, { probability: 0.9 }) ?? null,
  };
}

function positiveInt(name: string, text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new RangeError(`${name}: expected a positive whole number, got "${text}"`);
}
