import type { Pessoa } from "../data/reference-contract.ts";
import { evenly } from "../load/arrivals.ts";
import { generator } from "../load/generator.ts";
import { create, locationOf, persons } from "../load/requests.ts";
import { brief, get, parse, readBack, type Stored } from "../measure/audit.ts";
import { createRules, hitsOf, pathOf, readRules, sameness, searched, shortened } from "./api-rules.ts";
import type { Container, Project } from "./project.ts";
import { type Evidence, type Outcome, sectionOf } from "./section.ts";

type Found = Pick<Evidence, "outcome" | "got">;
type Url = Pick<Project, "url" | "within">;

/** Sends what the contest's instructions are about, one request after the other. */
export async function judgeRules(made: Url & Pick<Project, "signal" | "count" | "counted">) {
  const { url, signal, within } = made;
  const evidence: Evidence[] = [];
  const before = await made.count();
  const load = generator({ url, connections: 1 });
  let created = 0;
  const post = async (payload: string) => {
    signal.throwIfAborted();
    const { status, answer, fault } = await load.ask(create(payload));
    if (status === 201) created++;
    const got = answer ? said(status, answer.body.toString()) : fault;
    return { status, got, location: answer ? locationOf(answer) : "" };
  };

  for (const person of searched) await post(JSON.stringify(person));
  const isAlone = async (term: string) => hitsOf((await get(url, pathOf(term))).body)?.length === 1;
  const isFound = () => isAlone("zebu7");
  const startMs = performance.now();
  const atOnce = await isFound();
  const found = atOnce || (await within(20_000, isFound));
  evidence.push({
    rule: "search: when a person is found",
    outcome: atOnce ? "right" : found ? "lenient" : "wrong",
    request: `GET ${pathOf("zebu7")}`,
    expected: "at once",
    got: atOnce ? "at once" : `${found ? "after" : "not within"} ${seconds(performance.now() - startMs)}`,
  });

  // Two instances that store late do so at different moments, and each of them got one of the last two persons.
  const last = searched.slice(-2).map(({ apelido }) => apelido);
  if (found) await within(20_000, async () => (await Promise.all(last.map(isAlone))).every(Boolean));

  for (const { rule, path, expected, judge } of readRules) {
    signal.throwIfAborted();
    const { status, body } = await get(url, path);
    const hits = hitsOf(body)?.map(({ apelido }) => apelido);
    const got = hits ? `${hits.length} found: ${hits.slice(0, 5).join(", ")}` : said(status, body);
    evidence.push({ rule, outcome: judge(status, body), request: `GET ${path}`, expected, got });
  }

  for (const { rule, ruling, payload, expected } of createRules) {
    const { status, got, location } = await post(payload);
    let found: Found = { outcome: "wrong", got };
    if (ruling !== "valid" && (status === 400 || status === 422)) found.outcome = "right";
    if (ruling !== "invalid" && status === 201) found = await readAgain(made, location, payload);
    if (ruling === "open" && found.outcome === "right") found.outcome = status === 201 ? "lenient" : "strict";
    evidence.push({ rule, request: `POST ${brief(shortened(payload))}`, expected, ...found });
  }
  load.close();
  const { count, ms } = await made.counted(before + created);
  evidence.push({
    rule: "count: each 201",
    outcome: count === before + created && ms === 0 ? "right" : "wrong",
    request: "GET /contagem-pessoas",
    expected: `${created} more, at once`,
    got: `${count - before} more, ${ms === 0 ? "at once" : `after ${seconds(ms)}`}`,
  });
  const times = (wanted: Outcome) => evidence.filter(({ outcome }) => outcome === wanted).length;
  return sectionOf(
    "The contest's instructions, one request after the other.",
    evidence,
    `${times("wrong")} of ${evidence.length} wrong (${times("lenient")} lenient, ${times("strict")} strict)`,
  );
}

const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
const said = (status: number, body: string) => `${status || ""} ${brief(body)}`.trim();

/** Judges the person at the Location of a 201. */
async function readAgain({ url, within }: Url, location: string, payload: string): Promise<Found> {
  const [, id] = /^\/pessoas\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/i.exec(location) ?? [];
  if (id === undefined) return { outcome: "wrong", got: `201 with the Location "${location}"` };
  // An entry may store later than it answers; what the contest asks for at once is judged under load.
  let read = { status: 0, body: "" };
  await within(2000, async () => {
    read = await get(url, location);
    return read.status === 200;
  });
  const { apelido, nome, nascimento, stack = null } = JSON.parse(payload) as Pessoa;
  const same = sameness(parse(read.body), { id, apelido, nome, nascimento, stack });
  const got = `201, and then ${said(read.status, shortened(read.body))}`;
  return { outcome: read.status === 200 ? same : "wrong", got };
}

/** Ten times, fifty simultaneous creates of one apelido: one of each has to get 201. */
export async function judgeRace(made: Project) {
  const [rounds, users] = [10, 50];
  const evidence: Evidence[] = [];
  const before = await made.count();
  const load = generator({ url: made.url, connections: users });
  await load.warm(users);
  let all = 0;
  for (let round = 1; round <= rounds; round++) {
    made.signal.throwIfAborted();
    const payload = `{"apelido":"race${round}","nome":"Ana","nascimento":"1985-09-23","stack":["Go"]}`;
    const answers = await Promise.all(Array.from({ length: users }, () => load.ask(create(payload))));
    const times = Object.entries(Object.groupBy(answers, ({ status }) => status || "no answer"));
    const created = answers.filter(({ status }) => status === 201).length;
    all += created;
    evidence.push({
      rule: `round ${round}`,
      outcome: created === 1 ? "right" : "wrong",
      request: `${users} × POST ${payload}`,
      expected: "one 201",
      got: times.map(([status, own]) => `${own?.length} × ${status}`).join(", "),
    });
  }
  load.close();
  await made.counted(before + all); // what is stored late must not come into what follows
  return sectionOf(
    `One apelido, ${users} creates at once, ${rounds} times: one of them gets 201.`,
    evidence,
    `${all} × 201 (${rounds} is right)`,
  );
}

/** Under creates, kill -9 of the application, of the database, of everything; then each 201 is asked for. */
export async function judgeDurability(made: Project) {
  const all = await made.running();
  const victims = {
    "the application": all.filter(({ role }) => role === "api"),
    "the database": all.filter(({ role }) => role === "db"),
    everything: all,
  };
  const evidence: Evidence[] = [];
  for (const [what, killed] of Object.entries(victims)) {
    const services = killed.map(({ service }) => service).sort();
    const found = await strike(made, killed, `k${evidence.length}-`);
    evidence.push({
      rule: `${what} (${services.join(", ")})`,
      request: `kill -9 of ${what} under creates`,
      expected: "each 201 can be read as it was sent, and is counted",
      ...found,
    });
    if (found.got === notBack) break; // there is nobody to ask
  }
  return sectionOf(
    "A 201 outlives kill -9 of the application, of the database, and of everything.",
    evidence,
    evidence.map(({ got }) => got.split(":")[0]).join(" · "),
  );
}

const notBack = "does not answer again within 90 s";

async function strike(made: Project, killed: readonly Container[], prefix: string): Promise<Found> {
  if (killed.length === 0)
    return { outcome: "not judged", got: "not found: --api and --db name the services" };
  const { url, within } = made;
  const rate = 300; // creates a second
  const before = await made.count();
  const load = generator({ url, connections: 256, timeoutMs: 5000 });
  const person = persons(7, 1000, prefix);
  const stored: Stored[] = [];
  let [lastMs, gapMs] = [performance.now(), 0];
  const run = load.open({
    arrivals: evenly(rate),
    next() {
      const { stack, ...rest } = person();
      const pessoa = { ...rest, stack: stack ?? ["Go"] }; // null may come back as [], which is no loss
      return create(JSON.stringify(pessoa), [201], (answer) => {
        const location = locationOf(answer);
        stored.push({ ...pessoa, location, id: location.slice("/pessoas/".length) });
        gapMs = Math.max(gapMs, performance.now() - lastMs);
        lastMs = performance.now();
        return "";
      });
    },
  });
  let isBack = false;
  try {
    await within(10_000, () => stored.length > 2 * rate);
    await made.kill(killed);
    const then = stored.length;
    await made.again().catch(() => {}); // the next line sees whether it has
    isBack = await within(90_000, () => stored.length > then + rate);
  } finally {
    run.stop();
    await run.answered;
    load.close();
  }
  if (!isBack) return { outcome: "wrong", got: notBack };

  const all = before + stored.length;
  const { count } = await made.counted(all);
  const { lost, unreadable, changed, problems } = await readWhenUp(made, stored);
  const gone = goneOf(all, count, lost + unreadable);
  if (gone > 0) problems.push(`${count} are counted`);
  const got = `${gone} lost of ${all}: ${changed} changed, no 201 for ${seconds(gapMs)}`;
  return { outcome: gone + changed > 0 ? "wrong" : "right", got: [got, ...problems.slice(0, 1)].join("; ") };
}

/**
 * Reads persons back until each read gets 200 or 404, for 30 s at most. After a crash a load balancer may take its
 * upstreams for dead for a while (nginx: 10 s), and then answers 502 by itself.
 */
export async function readWhenUp({ url, within }: Url, stored: readonly Stored[]) {
  let found = { lost: 0, unreadable: 0, changed: 0, problems: [] as string[] };
  await within(30_000, async () => {
    const problems: string[] = [];
    found = { ...(await readBack(url, stored, problems)), problems };
    return found.unreadable === 0;
  });
  return found;
}

/**
 * How many of `all` persons stored so far are lost. The count reveals losses that a cache hides from a read by id, and
 * losses of persons stored earlier. Reading reveals losses that the count hides when persons were stored without a 201.
 */
export function goneOf(all: number, count: number, unread: number): number {
  return Math.max(unread, all - count);
}
