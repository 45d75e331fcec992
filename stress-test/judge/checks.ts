import type { Pessoa } from "../data/contract.ts";
import { readPessoa } from "../data/contract.ts";
import { evenly } from "../load/arrivals.ts";
import { generator } from "../load/generator.ts";
import type { Answer, Request } from "../load/http.ts";
import { create, locationOf, persons } from "../load/requests.ts";
import { brief, isSame, parse, readBack, type Stored } from "../measure/audit.ts";
import { type Project, within } from "./project.ts";
import { createRules, getRules, matching, payloadOf, searched, searchRules } from "./rules.ts";

/** `lenient` and `strict`: the instructions leave room. */
export type Outcome = "right" | "lenient" | "strict" | "wrong";
export type Evidence = { rule: string; outcome: Outcome; request: string; expected: string; got: string };
export type Section = {
  verdict: "right" | "wrong" | "not judged";
  /** In a few words. */
  figure: string;
  /** What was judged, in a sentence. */
  rule: string;
  evidence: Evidence[];
};

const lateMs = 20_000;
const mostHits = 50;
const rate = 300; // creates a second while something is killed

function sectionOf(rule: string, evidence: Evidence[], figure: string): Section {
  const verdict = evidence.some(({ outcome }) => outcome === "wrong") ? "wrong" : "right";
  return { verdict, figure, rule, evidence };
}

/** One request at a time to `url`. Status 0: there is no answer. */
function asker(url: string) {
  const load = generator({ url });
  const ask = async (method: "GET" | "POST", path: string, body?: string) => {
    const request: Request = {
      kind: "",
      method,
      path,
      check: () => "",
      ...(body === undefined ? {} : { body }),
    };
    const { answer, fault } = await load.ask(request);
    const text = answer?.body.toString() ?? "";
    return {
      status: answer?.status ?? 0,
      text,
      answer,
      said: answer ? `${answer.status} ${brief(text)}`.trim() : fault,
    };
  };
  return {
    post: (payload: string) => ask("POST", "/pessoas", payload),
    get: (path: string) => ask("GET", path),
    async count(): Promise<number> {
      const { status, text } = await ask("GET", "/contagem-pessoas");
      return status >= 200 && status < 300 && text.trim() !== "" ? Number(text) : Number.NaN;
    },
    close: load.close,
  };
}
type Asker = ReturnType<typeof asker>;

/** Milliseconds until the count is at least `wanted`; undefined: it stood still for 12 s, or never came. */
async function counted({ count }: Asker, wanted: number, signal: AbortSignal) {
  const startMs = performance.now();
  let [last, sinceMs] = [-1, startMs];
  const reached = await within(120_000, signal, async () => {
    const now = await count();
    if (now >= wanted) return true;
    if (now !== last) [last, sinceMs] = [now, performance.now()];
    return performance.now() - sinceMs > 12_000 ? false : undefined;
  });
  return { ms: reached ? performance.now() - startMs : undefined, count: await count() };
}

/** Sends what the contest's instructions are about, one request after the other. */
export async function judgeRules({ url }: Project, signal: AbortSignal): Promise<Section> {
  const api = asker(url);
  const { post, get } = api;
  const evidence: Evidence[] = [];
  const add = (
    group: string,
    what: string,
    outcome: Outcome,
    request: string,
    expected: string,
    got: string,
  ) =>
    evidence.push({ rule: `${group}: ${what}`, outcome, request: brief(request), expected, got: brief(got) });
  const before = await api.count();
  let created = 0;

  for (const person of searched) {
    signal.throwIfAborted();
    if ((await post(JSON.stringify(person))).status === 201) created++;
  }
  const startMs = performance.now();
  const hits = async (query: string) => {
    const { status, text, said } = await get(`/pessoas?t=${query}`);
    const found = status === 200 ? parse(text) : undefined;
    return { said, found: Array.isArray(found) ? (found as Stored[]) : undefined };
  };
  const isFound = async () =>
    (await hits("Zebu7")).found?.length === 1 ? performance.now() - startMs : undefined;
  const foundMs = (await isFound()) === undefined ? await within(lateMs, signal, isFound) : 0;
  const late =
    foundMs === undefined
      ? "not within 20 s"
      : foundMs === 0
        ? "at once"
        : `after ${(foundMs / 1000).toFixed(1)} s`;
  add(
    "search",
    "when a person is found",
    foundMs === 0 ? "right" : foundMs ? "lenient" : "wrong",
    "GET /pessoas?t=Zebu7",
    "at once",
    late,
  );

  for (const { group, what, term, query, open } of searchRules) {
    signal.throwIfAborted();
    const wanted = matching(term).map(({ apelido }) => apelido);
    const { found, said } = await hits(query);
    const got = found?.map(({ apelido }) => apelido) ?? [];
    const missing = wanted.filter((apelido) => !got.includes(apelido));
    const more = got.filter((apelido) => !wanted.includes(apelido));
    const enough = wanted.length <= mostHits ? missing.length === 0 : got.length - more.length >= mostHits;
    const isWrong = !found || !enough || (more.length > 0 && !open);
    const lenient = more.length > 0 || got.length > mostHits;
    add(
      group,
      what,
      isWrong ? "wrong" : lenient ? "lenient" : open ? "strict" : "right",
      `GET /pessoas?t=${query}`,
      wanted.length <= 5 ? `persons: ${wanted.join(", ") || "none"}` : `${mostHits} persons`,
      found ? `${got.length} persons: ${got.slice(0, 5).join(", ")}` : said,
    );
  }
  const { found: [hit] = [] } = await hits("Elixir7");
  const [sought] = searched as [Pessoa];
  add(
    "search",
    "the person as sent",
    hit && isSame(hit, { ...sought, id: hit.id }) ? "right" : "wrong",
    "GET /pessoas?t=Elixir7",
    JSON.stringify(sought),
    JSON.stringify(hit) ?? "nobody",
  );

  for (const { group, what, path, expected, allowed } of getRules) {
    const { status, said } = await get(path);
    const outcome = expected.includes(status) ? "right" : allowed.includes(status) ? "lenient" : "wrong";
    add(group, what, outcome, `GET ${path}`, expected.join(" or "), said);
  }

  for (const [nth, rule] of createRules.entries()) {
    signal.throwIfAborted();
    const payload = payloadOf(rule, nth);
    const { status, answer, said } = await post(payload);
    const [isCreated, isRefused] = [status === 201, status === 400 || status === 422];
    if (isCreated) created++;
    let [outcome, got]: [Outcome, string] = ["wrong", said];
    if (rule.ruling !== "valid" && isRefused) outcome = rule.ruling === "open" ? "strict" : "right";
    else if (rule.ruling !== "invalid" && isCreated) {
      const wrong = await readAgain(answer as Answer, payload, get, signal);
      if (wrong === "") outcome = rule.ruling === "open" ? "lenient" : "right";
      else got = wrong;
    }
    const expected = { valid: "201, and the person as sent", invalid: "422 or 400", open: "201, 422 or 400" }[
      rule.ruling
    ];
    add(rule.group, rule.what, outcome, `POST ${payload}`, expected, got);
  }
  const now = await api.count();
  const text = (await get("/contagem-pessoas")).text;
  add(
    "count",
    "digits alone",
    /^\d+$/.test(text) ? "right" : /^\s*\d+\s*$/.test(text) ? "lenient" : "wrong",
    "GET /contagem-pessoas",
    "a number",
    text,
  );
  const { ms, count } = await counted(api, before + created, signal);
  const seen =
    now === before + created
      ? "at once"
      : ms === undefined
        ? `${count - before} of them`
        : `${count - before}, after ${(ms / 1000).toFixed(1)} s`;
  add(
    "count",
    "each 201, at once",
    now === before + created ? "right" : "wrong",
    "GET /contagem-pessoas",
    `${created} more`,
    seen,
  );
  api.close();
  const times = (outcome: Outcome) => evidence.filter((each) => each.outcome === outcome).length;
  const room = `${times("lenient")} lenient, ${times("strict")} strict`;
  return sectionOf(
    "The contest's instructions, one request after the other.",
    evidence,
    `${times("wrong")} of ${evidence.length} wrong (${room})`,
  );
}

/** What is wrong with a 201 and the person at its Location; "" when nothing is. */
async function readAgain(
  answer: Answer,
  payload: string,
  get: Asker["get"],
  signal: AbortSignal,
): Promise<string> {
  const location = locationOf(answer);
  if (!/^\/pessoas\/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(location))
    return `201 with the Location "${location}"`;
  // An entry may store later than it answers; what the contest asks for at once is judged under load.
  const read = await within(2000, signal, async () => {
    const again = await get(location);
    return again.status === 200 ? again : undefined;
  });
  if (!read) return `201, and ${location} answers ${(await get(location)).said}`;
  // What the contract refuses and an entry takes is compared as JSON.
  const person = readPessoa(payload);
  const { apelido, nome, nascimento, stack = null } = JSON.parse(payload) as Pessoa;
  const sent = typeof person === "object" ? person : { apelido, nome, nascimento, stack };
  return isSame(parse(read.text), { ...sent, id: location.slice("/pessoas/".length) })
    ? ""
    : `201, and then ${read.text}`;
}

/** Ten times, fifty simultaneous creates of one apelido: one of each has to get 201. */
export async function judgeRace({ url }: Project, signal: AbortSignal): Promise<Section> {
  const [rounds, users] = [10, 50];
  const evidence: Evidence[] = [];
  const api = asker(url);
  const before = await api.count();
  const load = generator({ url, connections: users });
  await load.warm(users);
  let all = 0;
  for (let round = 0; round < rounds; round++) {
    signal.throwIfAborted();
    const person = {
      apelido: `race${round}-${users}`,
      nome: "Ana Barbosa",
      nascimento: "1985-09-23",
      stack: ["Go"],
    };
    const request = create(JSON.stringify(person), [201]);
    const answers = await Promise.all(Array.from({ length: users }, () => load.ask(request)));
    const counts = Object.entries(Object.groupBy(answers, ({ status }) => status));
    const created = answers.filter(({ status }) => status === 201).length;
    all += created;
    evidence.push({
      rule: `round ${round + 1}`,
      outcome: created === 1 ? "right" : "wrong",
      request: `${users} × POST ${request.body}`,
      expected: "one 201",
      got: counts
        .map(([status, of]) => `${of?.length} × ${status === "0" ? "no answer" : status}`)
        .join(", "),
    });
  }
  load.close();
  await counted(api, before + all, signal); // what is stored late must not come into what follows
  api.close();
  return sectionOf(
    `One apelido, ${users} creates at once, ${rounds} times: one of them gets 201.`,
    evidence,
    `${all} × 201 (${rounds} is right)`,
  );
}

/** Under creates, kill -9 of the application, of the database, of everything; then each 201 is asked for. */
export async function judgeDurability(made: Project, signal: AbortSignal): Promise<Section> {
  const all = await made.containers();
  const idsOf = (role: string) => all.filter((each) => each.role === role).map(({ id }) => id);
  const strikes: [string, string[]][] = [
    ["the application", idsOf("api")],
    ["the database", idsOf("db")],
    ["everything", all.map(({ id }) => id)],
  ];
  const evidence: Evidence[] = [];
  const figures: string[] = [];
  for (const [nth, [what, ids]] of strikes.entries()) {
    const request = `kill -9 of ${what} under ${rate} creates/s`;
    const services = all
      .filter(({ id }) => ids.includes(id))
      .map(({ service }) => service)
      .sort();
    if (ids.length === 0) {
      evidence.push({
        rule: what,
        outcome: "strict",
        request,
        expected: "",
        got: `not judged: which service is ${what}? --api and --db name it`,
      });
      continue;
    }
    const { acknowledged, lost, changed, gapMs, said } = await strike(
      made,
      { ids, prefix: `${nth}` },
      signal,
    );
    figures.push(`${lost} lost of ${acknowledged}`);
    evidence.push({
      rule: `${what} (${services.join(", ")})`,
      outcome: lost + changed > 0 || gapMs === undefined ? "wrong" : "right",
      request,
      expected: "each 201 can be read as it was sent",
      got: `${acknowledged} × 201: ${lost} lost, ${changed} changed; ${gapMs === undefined ? "it does not answer again within 90 s" : `no 201 for ${(gapMs / 1000).toFixed(1)} s`}${said}`,
    });
  }
  return sectionOf(
    "A 201 outlives kill -9 of the application, of the database, and of everything.",
    evidence,
    figures.join(" · "),
  );
}

type Strike = { ids: string[]; prefix: string };
async function strike(made: Project, { ids, prefix }: Strike, signal: AbortSignal) {
  const { url } = made;
  const api = asker(url);
  const before = await api.count();
  const load = generator({ url, connections: 256, timeoutMs: 5000 });
  const person = persons(7, 1000, `k${prefix}-`);
  const stored: Stored[] = [];
  let [lastMs, longestMs] = [performance.now(), 0];
  const run = load.open({
    arrivals: evenly(rate),
    next() {
      const pessoa = person();
      return create(JSON.stringify(pessoa), [201], (answer) => {
        const location = locationOf(answer);
        stored.push({ ...pessoa, location, id: location.slice("/pessoas/".length) });
        longestMs = Math.max(longestMs, performance.now() - lastMs);
        lastMs = performance.now();
        return "";
      });
    },
  });
  let isBack: boolean | undefined;
  try {
    await within(10_000, signal, () => stored.length > 2 * rate || undefined);
    await made.kill(ids);
    await made.again();
    const so = stored.length;
    isBack = await within(90_000, signal, () => stored.length > so + rate || undefined);
  } finally {
    run.stop();
    await run.answered;
    load.close();
  }
  const problems: string[] = [];
  const { count } = await counted(api, before + stored.length, signal);
  const found = await readBack(url, stored, problems);
  api.close();
  // What an instance has in its cache can still be read by its id, but is not counted.
  const lost = Math.max(
    found.lost + found.unreadable,
    Math.min(stored.length, before + stored.length - count),
  );
  const said =
    problems.length > 0 ? `; ${problems[0]}` : lost > 0 ? `; the count grew by ${count - before}` : "";
  return {
    acknowledged: stored.length,
    lost,
    changed: found.changed,
    gapMs: isBack ? longestMs : undefined,
    said,
  };
}
