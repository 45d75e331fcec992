// A well-behaved client in a separate process. 20 times a second it creates a person, reads it and, every second time,
// searches for it, until its standard input ends. Prints the answers as JSON.
import { evenly } from "../../stress-test/load/arrivals.ts";
import { generator } from "../../stress-test/load/generator.ts";
import type { Request } from "../../stress-test/load/http.ts";
import { create, locationOf, read, search } from "../../stress-test/load/requests.ts";
import type { Result } from "../../stress-test/load/results.ts";
import { readPositionals } from "../../tools/arguments.ts";
import { newPessoa } from "../helpers/requests.ts";

/** All creates, reads and searches, in the order of the answers. */
export type Experience = Result[];

const visitsPerSecond = 20;

if (import.meta.main) {
  const [url = ""] = readPositionals(
    "Usage: neighbour.ts URL   run.ts starts it; ends with its standard input",
    1,
  );
  if (!URL.canParse(url)) {
    console.error(`URL: expected a URL, got "${url}"; see --help`);
    process.exit(2);
  }
  let visits = 0;
  const visit = (): Request => {
    const person = newPessoa();
    const searches = visits++ % 2 === 0;
    return {
      ...create(JSON.stringify(person)),
      follow: (answer) => ({
        request: {
          ...read(locationOf(answer)),
          follow: () => (searches ? { request: search(person.apelido), afterMs: 0 } : undefined),
        },
        afterMs: 0,
      }),
    };
  };
  const load = generator({ url, timeoutMs: 60_000 });
  const { stop, answered, results } = load.open({ arrivals: evenly(visitsPerSecond), next: visit });
  for await (const _ of Bun.stdin.stream());
  stop();
  await answered;
  load.close();
  console.log(JSON.stringify(results satisfies Experience));
}
