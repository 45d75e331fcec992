import { isDeepStrictEqual } from "node:util";
import { generator } from "../../stress-test/load/generator.ts";
import { type Attempt, type Body, createOf, outcomeOf } from "../../stress-test/load/journal.ts";
import { client, type Found } from "../helpers/requests.ts";

/** Broken promises, each as a sentence. */
export type Broken = {
  /** Acknowledged, or refused as taken, and missing. */
  lost: string[];
  /** Stored, but not as it was sent. */
  changed: string[];
  /** Several persons with one apelido, or a row that was never sent. */
  twice: string[];
  /** Any other answer that the contract does not allow. */
  wrong: string[];
};
export type Verdict = Broken & { acknowledged: number; refused: number; unknown: number; stored: number };

const lanes = 16;
const patienceMs = 30_000;

/**
 * Checks the answers of `attempts` against the registry at `url`, which had `storedBefore` persons and gets no other
 * creates. Unknown creates are sent again: a stored one must get 422, and any other one 201. The audit reads through the
 * API, so empty the caches first.
 */
export async function audit(url: string, attempts: readonly Attempt[], storedBefore = 0): Promise<Verdict> {
  const { get, search, count } = client(url);
  const load = generator({ url });
  const broken: Broken = { lost: [], changed: [], twice: [], wrong: [] };
  const people = [...Map.groupBy(attempts, ({ body }) => body.apelido).values()];
  let stored = storedBefore;

  for (const { body, outcome } of attempts) {
    if (outcome.kind === "refused" && outcome.status !== 422) {
      broken.wrong.push(`${body.apelido}: a valid person got ${outcome.status}`);
    }
    // 503 with Retry-After is the only allowed failure.
    if (outcome.kind === "unknown" && /^(?!503$)\d/.test(outcome.reason)) {
      broken.wrong.push(`${body.apelido}: answered ${outcome.reason}`);
    }
    if (outcome.kind === "acknowledged" && !isSame(outcome.answer, outcome.id, body)) {
      broken.changed.push(`${body.apelido}: the 201 was for ${JSON.stringify(outcome.answer)}`);
    }
  }

  const queue = people.values();
  await Promise.all(
    Array.from({ length: lanes }, async () => {
      for (const same of queue) if (await isThere(same)) stored++;
    }),
  );

  const counted = await patiently(async () => {
    const n = await count();
    if (Number.isNaN(n)) throw new Error("GET /contagem-pessoas: no number");
    return n;
  });
  if (counted < stored) broken.lost.push(`the count is ${counted}, but ${stored} persons can be read`);
  if (counted > stored) broken.twice.push(`the count is ${counted}, but only ${stored} persons are known`);

  load.close();
  const total = (kind: Attempt["outcome"]["kind"]) =>
    attempts.filter(({ outcome }) => outcome.kind === kind).length;
  return {
    ...broken,
    acknowledged: total("acknowledged"),
    refused: total("refused"),
    unknown: total("unknown"),
    stored: counted,
  };

  /** Whether one person has the apelido of all attempts in `same`; adds errors to `broken`. */
  async function isThere(same: Attempt[]): Promise<boolean> {
    const { apelido } = (same[0] as Attempt).body;
    const acknowledged = same.flatMap(({ body, outcome }) =>
      outcome.kind === "acknowledged" ? [{ body, id: outcome.id }] : [],
    );
    if (acknowledged.length > 1) broken.twice.push(`${apelido}: acknowledged ${acknowledged.length} times`);
    const read = await Promise.all(acknowledged.map(isReadable));
    // A single 201: read it by id; the count shows whether there is a second person.
    if (same.length === 1 && acknowledged.length === 1) return read[0] as boolean;

    const found = (await patiently(() => search(apelido))).filter((each) => each.apelido === apelido);
    if (found.length > 1) broken.twice.push(`${apelido}: ${found.length} persons have it`);
    if (acknowledged.length > 0) return read.includes(true);

    const unknown = same.filter(({ outcome }) => outcome.kind === "unknown");
    const [person] = found;
    if (person && !unknown.some(({ body }) => isSame(person, person.id, body))) {
      broken.changed.push(`${apelido}: stored, but never sent like this: ${JSON.stringify(person)}`);
    }
    if (!person && same.some(({ outcome }) => outcome.kind === "refused" && outcome.status === 422)) {
      broken.lost.push(`${apelido}: got 422 as taken, but no person has it`);
    }
    return unknown[0] ? await sentAgain(unknown[0].body, person) : person !== undefined;
  }

  async function isReadable({ id, body }: { id: string; body: Body }): Promise<boolean> {
    const person = await patiently(async () => {
      const response = await get(`/pessoas/${id}`);
      if (response.status === 404) return undefined;
      if (response.status !== 200) throw new Error(`GET /pessoas/${id}: ${response.status}`);
      return (await response.json()) as Found;
    });
    if (!person) broken.lost.push(`${body.apelido}: got 201 with the id ${id}, but cannot be read`);
    else if (!isSame(person, id, body)) {
      broken.changed.push(`${body.apelido}: ${JSON.stringify(body)} became ${JSON.stringify(person)}`);
    }
    return person !== undefined;
  }

  async function sentAgain(body: Body, person: Found | undefined): Promise<boolean> {
    let mayBeStored = person !== undefined;
    const outcome = await patiently(async () => {
      const again = outcomeOf((await load.ask(createOf(body))).answer);
      if (again.kind !== "unknown") return again;
      mayBeStored = true;
      throw new Error(`POST again: ${again.reason}`);
    });
    if (outcome.kind === "acknowledged") {
      if (person) broken.twice.push(`${body.apelido}: is stored, but was created a second time`);
      return await isReadable({ id: outcome.id, body });
    }
    if (outcome.status !== 422) broken.wrong.push(`${body.apelido}: sent again, got ${outcome.status}`);
    else if (!mayBeStored)
      broken.lost.push(`${body.apelido}: sent again, got 422 as taken, but no person has it`);
    return mayBeStored;
  }
}

/** Whether `person` is `body` with this id and no other members. */
function isSame(person: unknown, id: string, { apelido, nome, nascimento, stack = null }: Body): boolean {
  return isDeepStrictEqual(person, { id, apelido, nome, nascimento, stack });
}

/** Repeats a request while it gets 503. */
async function patiently<T>(ask: () => Promise<T>): Promise<T> {
  const patienceEnds = performance.now() + patienceMs;
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (performance.now() > patienceEnds) throw error;
      await Bun.sleep(100);
    }
  }
}
