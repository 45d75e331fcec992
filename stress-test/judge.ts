import { existsSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { numberOf, readArguments, runScript, wholeOf } from "../tools/arguments.ts";
import { judgeDurability, judgeRace, judgeRules } from "./judge/checks.ts";
import { runLoad } from "./judge/load.ts";
import { type Options, type Project, project } from "./judge/project.ts";
import {
  costOf,
  type Judged,
  renderMarkdown,
  renderReport,
  type SectionName,
  scoreOf,
  sections,
} from "./judge/report.ts";
import { describeMachine, nameMachine } from "./measure/machine.ts";

const usage = `Usage: bun run judge [OPTIONS] [DIR ...]

Judges entries of the contest (Rinha de Backend 2023 Q3): each DIR holds a compose project whose API listens on a port of
this machine (default: this checkout). Each in turn, on an empty store: starts it, judges it, and removes it with its
volumes. Prints a table in Markdown, and leaves report.html, result.json and table.md in a folder.

  rules     about 120 requests that the contest's instructions are about. Where these leave room, an answer is "lenient"
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
  --gatling DIR      the load by the Gatling that install-gatling.sh put there
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

const namesOf = (option: string, list: string): SectionName[] =>
  list.split(",").map((name) => {
    const section = sections.find((each) => each === name.trim());
    if (section) return section;
    throw new RangeError(`--${option}: expected ${sections.join(", ")}, got "${name}"`);
  });

async function main(): Promise<void> {
  const text = { type: "string" } as const;
  const texts = { type: "string", multiple: true, default: [] as string[] } as const;
  const given = readArguments(
    usage,
    {
      short: { type: "boolean", default: false },
      only: { ...text, default: sections.join() },
      rounds: { ...text, default: "1" },
      budget: text,
      gatling: text,
      direct: { type: "boolean", default: false },
      port: { ...text, default: "9999" },
      project: text,
      file: texts,
      env: texts,
      api: texts,
      db: texts,
      expect: text,
      out: text,
    },
    ({ direct, port, project, file, env, api, db, ...values }, folders) => {
      const isPair = (pair: string) => /^\w+=/.test(pair);
      const wrong = env.find((pair) => !isPair(pair));
      if (wrong !== undefined) throw new RangeError(`--env: expected NAME=VALUE, got "${wrong}"`);
      const missing = folders.find((folder) => !existsSync(folder));
      if (missing !== undefined) throw new RangeError(`there is no folder ${missing}`);
      const pairs = env.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);
      const options: Options = {
        port: wholeOf("port", port, 1, 65_535),
        direct,
        project,
        files: file,
        env: Object.fromEntries(pairs),
        api,
        db,
      };
      return {
        options,
        folders: (folders.length > 0 ? folders : [join(import.meta.dir, "..")]).map((folder) =>
          resolve(folder),
        ),
        only: namesOf("only", values.only),
        expect: values.expect === undefined ? [] : namesOf("expect", values.expect),
        rounds: wholeOf("rounds", values.rounds, 1, 100),
        budget: values.budget === undefined ? undefined : numberOf("budget", values.budget, 0.01, 100),
        gatling: values.gatling && resolve(values.gatling),
        short: values.short,
        out: values.out,
      };
    },
    100,
  );
  const { folders, only, rounds, budget, short } = given;
  const load = { scale: short ? 45 / 205 : 1, gatling: given.gatling };
  const rule = `The contest's load${short ? ", shortened to 45 s" : ""}, by ${given.gatling ? "Gatling" : "the generator of stress-test/load"}: each valid person is stored, and no request fails.`;
  const abandoned = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => abandoned.abort(new Error(`interrupted by ${signal}`)));
  }
  const { signal } = abandoned;
  const entries: Judged[] = folders.map((folder) => ({ name: basename(folder), sections: {}, loads: [] }));

  /** One start of an entry: up, `judge`, down. */
  async function once(
    nth: number,
    step: string,
    judge: (made: Project, entry: Judged) => Promise<void>,
    scaled?: number,
  ) {
    const [entry, folder] = [entries[nth] as Judged, folders[nth] as string];
    if (entry.error !== undefined || signal.aborted) return;
    const made = project(folder, given.options, signal);
    let started = false;
    tell(entry, step);
    try {
      await made.up(scaled, () => {
        started = true;
      });
      await judge(made, entry);
    } catch (error) {
      // Of a container that has ended, everything else is only a consequence.
      const reason = signal.aborted
        ? error
        : await made.failing().then(
            () => error,
            (failed: unknown) => failed,
          );
      entry.error = (reason as Error).message;
      tell(entry, entry.error);
    } finally {
      if (started) await made.down();
    }
  }
  const wants = (name: SectionName) => only.includes(name);
  for (let round = 1; round <= rounds; round++) {
    for (const nth of entries.keys()) {
      await once(
        nth,
        rounds > 1 ? `round ${round} of ${rounds}, starting` : "starting",
        async (made, entry) => {
          if (wants("score") || wants("cost")) {
            tell(entry, `the contest's load, ${short ? 45 : 205} s`);
            entry.loads.push(await runLoad(made, load, signal));
          }
          if (round > 1) return;
          for (const [name, judge] of [
            ["race", judgeRace],
            ["durable", judgeDurability],
            ["rules", judgeRules],
          ] as const) {
            if (!wants(name)) continue;
            tell(entry, name);
            entry.sections[name] = await judge(made, signal);
            tell(entry, `${name}: ${entry.sections[name].figure}`);
          }
        },
      );
    }
  }
  for (const [nth, { loads, sections }] of entries.entries()) {
    if (loads.length > 0 && wants("score")) sections.score = scoreOf(loads, rule);
    if (loads.length > 0 && wants("cost")) sections.cost = costOf(loads);
    if (budget === undefined || !wants("budget")) continue;
    const step = `the contest's load with ${budget} CPUs`;
    await once(
      nth,
      step,
      async (made) => {
        sections.budget = scoreOf(
          [await runLoad(made, load, signal)],
          `${rule} All containers together have ${budget} CPUs.`,
        );
      },
      budget,
    );
  }
  signal.throwIfAborted();

  const at = new Date().toISOString();
  const out =
    given.out ??
    join(import.meta.dir, "user-files", "results", `judge-${at.replaceAll(/\W/g, "").slice(0, 15)}`);
  const machine = describeMachine();
  const command = `bun run judge ${process.argv.slice(2).join(" ")}`.trim();
  const json = entries.map(({ loads, ...entry }) => ({
    ...entry,
    loads: loads.map(({ requests, samples, ...run }) => run),
  }));
  const markdown = renderMarkdown(entries);
  await Bun.write(
    join(out, "report.html"),
    renderReport(entries, { at, machine: nameMachine(machine), command }),
  );
  await Bun.write(
    join(out, "result.json"),
    `${JSON.stringify({ at, machine, command, entries: json }, null, 2)}\n`,
  );
  await Bun.write(join(out, "table.md"), `${markdown}\n`);
  console.log(markdown);
  console.error(`\nReport: ${join(out, "report.html")}`);
  const unexpected = entries.flatMap(({ name, sections }) =>
    given.expect
      .filter((section) => sections[section]?.verdict !== "right")
      .map((section) => `${name}: ${section} is not right`),
  );
  for (const line of unexpected) console.error(line);
  // An exit, because what a failure left open must not keep the process.
  process.exit(entries.some(({ error }) => error !== undefined) ? 2 : unexpected.length > 0 ? 1 : 0);
}

function tell({ name }: Judged, text: string) {
  const paint = process.stderr.isTTY && process.env.NO_COLOR === undefined;
  console.error(`${paint ? `\x1b[1m${name}\x1b[0m` : name}: ${text}`);
}

if (import.meta.main) await runScript(main);
