import type { Body, Journal, Outcome } from "./journal.ts";

/** A number from 0 to 1, another one with each call; the same ones for the same seed (mulberry32). */
export function randomFrom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export type LoadOptions = {
  url: string;
  journal: Journal;
  /** Creates a second, whether answers come or not. */
  rate: number;
  random: () => number;
};
export type Load = ReturnType<typeof startLoad>;

const tickMs = 10;
const answerTimeoutMs = 10_000;
const takenShare = 0.05;

/** Sends creates until it is stopped. Some of them want an apelido that was sent before, for somebody else. */
export function startLoad({ url, journal, rate, random }: LoadOptions) {
  const started = performance.now();
  const inFlight = new Set<Promise<Outcome>>();
  const waiting = new Set<() => void>();
  const apelidos: string[] = [];
  let sent = 0;
  let lastAcknowledged = started;
  let longestGapMs = 0;

  function tick() {
    const due = Math.floor(((performance.now() - started) / 1000) * rate);
    while (sent < due) {
      sent++;
      const sending = send(nextBody()).finally(() => inFlight.delete(sending));
      inFlight.add(sending);
    }
  }

  function nextBody(): Body {
    const body = randomBody(random);
    const earlier = apelidos[apelidos.length - 1 - Math.floor(random() * 200)];
    if (earlier !== undefined && random() < takenShare) return { ...body, apelido: earlier };
    apelidos.push(body.apelido);
    return body;
  }

  async function send(body: Body): Promise<Outcome> {
    const answered = journal.sent(body);
    const outcome = await create(url, body);
    answered(outcome);
    if (outcome.kind === "acknowledged") {
      longestGapMs = Math.max(longestGapMs, performance.now() - lastAcknowledged);
      lastAcknowledged = performance.now();
      for (const resolve of waiting) resolve();
    }
    return outcome;
  }

  const clock = setInterval(tick, tickMs);
  return {
    /** Resolves when the next create is acknowledged. */
    async acknowledged(): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.add(resolve);
      await promise;
      waiting.delete(resolve);
    },
    /** One more of a new person, at once, with what `change` says. */
    create: (change: Partial<Body> = {}) => send({ ...randomBody(random), ...change }),
    /** Sends no more. Resolves when all answers are there or given up, with what was sent and how it went. */
    async stop() {
      clearInterval(clock);
      const perSecond = sent / ((performance.now() - started) / 1000);
      await Promise.all(inFlight);
      return { perSecond, longestGapMs };
    },
  };
}

export async function create(url: string, body: Body): Promise<Outcome> {
  try {
    const response = await fetch(new URL("/pessoas", url), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal: AbortSignal.timeout(answerTimeoutMs),
    });
    const { status } = response;
    if (status === 201) {
      const answer: unknown = await response.json();
      const [, id] = /^\/pessoas\/([0-9a-f-]{36})$/.exec(response.headers.get("location") ?? "") ?? [];
      return id === undefined
        ? { kind: "unknown", reason: "201 without a Location" }
        : { kind: "acknowledged", id, answer };
    }
    await response.body?.cancel();
    if (status >= 400 && status < 500) return { kind: "refused", status };
    const retry = response.headers.get("retry-after");
    return { kind: "unknown", reason: `${status}${retry === null ? " without Retry-After" : ""}` };
  } catch (error) {
    return { kind: "unknown", reason: (error as Error).name };
  }
}

const names = [
  "Ana",
  "José",
  "Zoë",
  "李小龍",
  "Ünal",
  "O'Neil",
  "Ωmega",
  "🦜 Loro",
  '"Q"',
  "back\\slash",
  "50 %_",
];
const letters = "abcdefghijklmnopqrstuvwxyz0123456789";

/** A valid person whose apelido nobody else has, of all shapes that have to come back as they were. */
export function randomBody(random: () => number): Body {
  const below = (n: number) => Math.floor(random() * n);
  const pick = <T>(from: ArrayLike<T>) => from[below(from.length)] as T;
  const word = (length: number) => Array.from({ length }, () => pick(letters)).join("");
  const two = (n: number) => String(n).padStart(2, "0");
  const body: Body = {
    apelido: `${word(16)}${pick(["", "-ç", " 🦜"])}`,
    nome: `${pick(names)} ${word(1 + below(80))}`,
    nascimento: `${1900 + below(120)}-${two(1 + below(12))}-${two(1 + below(28))}`,
  };
  const stack = [undefined, null, [], Array.from({ length: 1 + below(8) }, () => word(1 + below(31)))][
    below(4)
  ];
  if (stack !== undefined) body.stack = stack;
  return body;
}
