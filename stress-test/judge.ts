import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { namedOf, numberOf, readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { judgeDurability, judgeRace, judgeRules } from "./judge/checks.ts";
import { limitsOf, runLoad, scoreOf } from "./judge/load.ts";
import { project } from "./judge/project.ts";
import { headingsOf, type Judged, renderMarkdown, renderReport, sections } from "./judge/report.ts";
import { describeMachine, nameMachine } from "./measure/machine.ts";

const usage = `Usage: bun run judge [OPTIONS] [[NAME=]DIR ...]

Judges entries of the contest (Rinha de Backend 2023 Q3): each DIR holds a compose project whose API listens on a port of
this machine (default: this checkout). Each in turn, on an empty store: starts it, judges it, and removes it with its
volumes. Prints a table in Markdown, and leaves report.html, result.json and table.md in a folder. NAME is the entry's
heading (default: the folder's name).

  rules     about 140 requests that the contest's instructions are about. Where these leave room, an answer is "lenient"
            or "strict" and not wrong; 400 and 422 are both right for a create that has to be refused
  race      one nickname, 50 times at once, ten rounds: one 201 each
  durable   kill -9 of the application, of the database and of everything, under load: each 201 is asked for
  score     the contest's load: persons stored of the maximum for what was sent, and failed requests
  cost      CPU and memory of the containers, and whether their limits sum to at most 1.5 CPUs and 3 GB
  budget    with --budget: score, with all CPU limits scaled to that sum

  --short            the load in 45 s instead of 205
  --only LIST        these sections (default: all); rules, race and durable run in the first round only
  --rounds N         the load N times, in alternation: A B A B; the table has medians (default 1)
  --budget CPUS      the load once more with less CPU
  --gatling DIR      the load by this Gatling: DIR/gatling-3.9.5 after install-gatling.sh DIR
  --port N           where the API listens (default 9999)
  --direct           the load goes past docker-proxy, to the container that publishes the port
  --project NAME     name of the compose project while it is judged (default judge-<process>)
  --file FILE        compose file, seen from DIR; may be given several times (default: what compose finds)
  --env NAME=VALUE   variable for the compose file; may be given several times
  --api SERVICE, --db SERVICE   the application's and the database's services, where image and port do not tell them
  --expect LIST      exit with 1 unless these sections are right, such as score,durable,rules
  --out DIR          where to leave the report (default stress-test/user-files/results/judge-<time>)
  -h, --help         this text

Exit code: 0 judged, and as expected; 1 not as expected; 2 an entry could not be judged. Needs Docker with Compose.`;

const composeFiles = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];

const checks = { race: judgeRace, durable: judgeDurability, rules: judgeRules };

/** The names of sections in a list; without a list all. */
const namesOf = (option: string, list: string | undefined) =>
  namedOf(option, sections, list?.split(",")).map(({ name }) => name);

function readOptions() {
  const text = { type: "string" } as const;
  const texts = { type: "string", multiple: true, default: [] as string[] } as const;
  const flag = { type: "boolean", default: false } as const;
  return readArguments(
    usage,
    {
      short: flag,
      only: text,
      rounds: { ...text, default: "1" },
      budget: text,
      gatling: text,
      port: { ...text, default: "9999" },
      direct: flag,
      project: text,
      file: texts,
      env: texts,
      api: texts,
      db: texts,
      expect: text,
      out: text,
    },
    ({ only, expect, rounds, budget, port, gatling, env, ...values }, given) => {
      const wrong = env.find((pair) => !/^\w+=/.test(pair));
      if (wrong !== undefined) throw new RangeError(`--env: expected NAME=VALUE, got "${wrong}"`);
      if (given.length === 0) given = [join(import.meta.dir, "..")];
      const folders = given.map((each) => resolve(each.replace(/^[^=]+=/, "")));
      const headings = headingsOf(folders);
      // Compose would go on to look for them in the folders above.
      const files = values.file.length > 0 ? values.file : composeFiles;
      const bare = folders.find((folder) => !files.some((file) => existsSync(resolve(folder, file))));
      if (bare !== undefined) throw new RangeError(`there is no compose file in ${bare}`);
      if (gatling !== undefined && !existsSync(join(gatling, "bin", "gatling.sh")))
        throw new RangeError(`--gatling: there is no bin/gatling.sh in ${gatling}`);
      return {
        ...values,
        folders,
        names: given.map((each, nth) => /^[^=]+(?==)/.exec(each)?.[0] ?? (headings[nth] as string)),
        only: namesOf("only", only),
        expect: expect === undefined ? [] : namesOf("expect", expect),
        rounds: wholeOf("rounds", rounds, 1, 100),
        budget: budget === undefined ? undefined : numberOf("budget", budget, 0.01, 100),
        port: wholeOf("port", port, 1, 65_535),
        gatling: gatling && resolve(gatling),
        env: Object.fromEntries(env.map((pair) => pair.split(/=(.*)/s, 2))) as Record<string, string>,
      };
    },
    100,
  );
}
export type Options = ReturnType<typeof readOptions>;

async function main(): Promise<void> {
  const options = readOptions();
  const { folders, names, only, rounds, budget, short, gatling, expect } = options;
  const wants = (...names: typeof only) => names.some((name) => only.includes(name));
  const rule = `The contest's load${short ? ", shortened to 45 s" : ""}, by ${gatling ? "Gatling" : "the generator of stress-test/load"}: each valid person is stored, and no request fails.`;
  const abandoned = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
    process.on(signal, () => {
      console.error(`interrupted by ${signal}: what was started is removed first`);
      abandoned.abort(new Error(`interrupted by ${signal}`));
    });
  process.on("uncaughtException", (error) => abandoned.abort(error));
  const { signal } = abandoned;
  const entries = names.map((name): Judged => ({ name, sections: {}, loads: [] }));

  /** One start of one entry: up, judged, down. */
  async function once(nth: number, round: number, cpus?: number): Promise<void> {
    const entry = entries[nth] as Judged;
    if (entry.error !== undefined || signal.aborted) return;
    const tell = (text: string) => console.error(`${emphasised(entry.name)}: ${text}`);
    const made = project(folders[nth] as string, options, signal);
    try {
      const which = cpus ? `, for ${cpus} CPUs` : rounds > 1 ? `, round ${round} of ${rounds}` : "";
      tell(`starting${which}`);
      await made.up(cpus);
      if (wants("score", "cost") || cpus) {
        tell(`the contest's load, ${short ? 45 : 205} s`);
        const run = await runLoad(made, options);
        if (!cpus) entry.loads.push(run);
        else entry.sections.budget = scoreOf([run], `${rule} All containers together have ${cpus} CPUs.`);
      }
      for (const name of ["race", "durable", "rules"] as const) {
        if (round > 1 || cpus || !wants(name)) continue;
        tell(name);
        entry.sections[name] = await checks[name](made);
        tell(`${name}: ${entry.sections[name].figure}`);
      }
    } catch (error) {
      // Of a container that has ended, everything else is only a consequence.
      const reason = await (signal.aborted ? undefined : made.failing().catch((failed) => failed));
      entry.error = ((reason ?? error) as Error).message.replaceAll(/\s+/g, " ");
      tell(entry.error);
    } finally {
      await made.down();
    }
  }
  const times = wants("score", "cost") ? rounds : wants("rules", "race", "durable") ? 1 : 0;
  for (let round = 1; round <= times; round++) for (const nth of entries.keys()) await once(nth, round);
  if (budget && wants("budget")) for (const nth of entries.keys()) await once(nth, 1, budget);
  for (const { loads, sections } of entries) {
    if (loads[0] && wants("score")) sections.score = scoreOf(loads, rule);
    if (loads[0] && wants("cost")) sections.cost = limitsOf(loads[0]);
  }
  signal.throwIfAborted();

  const at = new Date().toISOString();
  const name = `judge-${at.replaceAll(/\W/g, "").slice(0, 15)}`;
  const out = options.out ?? join(import.meta.dir, "user-files", "results", name);
  const machine = describeMachine();
  const meta = { at, command: `bun run judge ${process.argv.slice(2).join(" ")}`.trim() };
  const json = entries.map(({ loads, ...entry }) => {
    return { ...entry, loads: loads.map(({ requests, samples, ...run }) => run) };
  });
  const page = renderReport(entries, { ...meta, machine: nameMachine(machine) });
  await Bun.write(join(out, "report.html"), page);
  await Bun.write(join(out, "result.json"), JSON.stringify({ ...meta, machine, entries: json }, null, 2));
  await Bun.write(join(out, "table.md"), `${renderMarkdown(entries)}\n`);
  console.log(renderMarkdown(entries));
  console.error(`\nReport: ${join(out, "report.html")}`);
  const unexpected = entries.flatMap(({ name, sections }) => {
    const wrong = expect.filter((section) => sections[section]?.verdict !== "right");
    return wrong.map((section) => `${name}: ${section} is not right`);
  });
  for (const line of unexpected) console.error(line);
  // An exit, because what a failure left open must not keep the process.
  process.exit(entries.some(({ error }) => error !== undefined) ? 2 : unexpected.length > 0 ? 1 : 0);
}

const isColored = process.stderr.isTTY && process.env.NO_COLOR === undefined;
const emphasised = (text: string) => (isColored ? `\x1b[1m${text}\x1b[0m` : text);

if (import.meta.main) await runScript(main);
