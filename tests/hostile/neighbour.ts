// A well-behaved client, as a process of its own: 20 times a second it creates a person, reads it and, every second
// time, searches for it, until its standard input ends. Prints what it got as JSON.
import { readPositionals } from "../../tools/arguments.ts";
import { client, type Found, newPessoa } from "../support.ts";

/** Milliseconds of all that were answered as they should be, and what was not. */
export type Experience = Record<"create" | "read" | "search", { ms: number[]; failures: string[] }>;

const tickMs = 50;

if (import.meta.main) {
  const [url = ""] = readPositionals(
    "Usage: neighbour.ts URL   run.ts starts it; ends with its standard input",
    1,
  );
  if (!URL.canParse(url)) {
    console.error(`URL: expected a URL, got "${url}"; see --help`);
    process.exit(2);
  }
  const { post, get } = client(url);
  const experience: Experience = {
    create: { ms: [], failures: [] },
    read: { ms: [], failures: [] },
    search: { ms: [], failures: [] },
  };

  const measure = async (what: keyof Experience, status: number, send: () => Promise<Response>) => {
    const started = performance.now();
    const { ms, failures } = experience[what];
    const took = () => Math.round(performance.now() - started);
    try {
      const response = await send();
      const body = await response.json();
      if (response.status === status) {
        ms.push(performance.now() - started);
        return body as Found;
      }
      failures.push(`${response.status} after ${took()} ms`);
    } catch (error) {
      failures.push(`${(error as Error).name} after ${took()} ms`);
    }
    return undefined;
  };

  const visit = async (nth: number) => {
    const person = await measure("create", 201, () => post(newPessoa()));
    if (!person) return;
    await measure("read", 200, () => get(`/pessoas/${person.id}`));
    if (nth % 2 === 0) await measure("search", 200, () => get(`/pessoas?t=${person.apelido}`));
  };

  const visits: Promise<void>[] = [];
  const clock = setInterval(() => visits.push(visit(visits.length)), tickMs);
  for await (const _ of Bun.stdin.stream());
  clearInterval(clock);
  await Promise.all(visits);
  console.log(JSON.stringify(experience));
}
