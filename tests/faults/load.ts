import type { Random } from "../../stress-test/data/payloads.ts";
import { evenly } from "../../stress-test/load/arrivals.ts";
import { generator } from "../../stress-test/load/generator.ts";
import type { Request } from "../../stress-test/load/http.ts";
import {
  type Body,
  createOf,
  type Journal,
  type Outcome,
  outcomeOf,
} from "../../stress-test/load/journal.ts";

export type LoadOptions = {
  url: string;
  journal: Journal;
  /** Creates per second, in an open loop. */
  rate: number;
  random: Random;
};

const takenIn = 20; // one create in 20 reuses an earlier apelido

/** Sends creates until stop(), and writes each with its answer to the journal. */
export function startLoad({ url, journal, rate, random }: LoadOptions) {
  const waiting = new Set<() => void>();
  const apelidos: string[] = [];
  const started = performance.now();
  let lastAcknowledged = started;
  let longestGapMs = 0;

  function nextBody(): Body {
    const body = randomBody(random);
    const earlier = apelidos[apelidos.length - random.int(1, 200)];
    if (earlier !== undefined && random.oneIn(takenIn)) return { ...body, apelido: earlier };
    apelidos.push(body.apelido);
    return body;
  }

  function journaled(body: Body): Request {
    const answered = journal.sent(body);
    return createOf(body, (outcome) => {
      answered(outcome);
      if (outcome.kind !== "acknowledged") return;
      longestGapMs = Math.max(longestGapMs, performance.now() - lastAcknowledged);
      lastAcknowledged = performance.now();
      for (const resolve of waiting) resolve();
    });
  }

  const load = generator({ url });
  const run = load.open({ arrivals: evenly(rate), next: () => journaled(nextBody()) });
  return {
    /** Resolves when the next create is acknowledged. */
    async acknowledged(): Promise<void> {
      const { promise, resolve } = Promise.withResolvers<void>();
      waiting.add(resolve);
      await promise;
      waiting.delete(resolve);
    },
    /** Sends one more create at once, of a new person with these members changed. */
    create: async (change: Partial<Body> = {}): Promise<Outcome> =>
      outcomeOf((await load.ask(journaled({ ...randomBody(random), ...change }))).answer),
    /** Stops sending. Resolves with the outcome when each request was answered or has timed out. */
    async stop() {
      run.stop();
      const perSecond = run.started / ((performance.now() - started) / 1000);
      await run.answered;
      load.close();
      return { perSecond, longestGapMs };
    },
  };
}

const names = 'Ana, José, Zoë, 李小龍, Ünal, O\'Neil, Ωmega, 🦜 Loro, "Q", back\\slash, 50 %_'.split(", ");
const letters = "abcdefghijklmnopqrstuvwxyz0123456789";

/** A valid person with a unique apelido, in one of the shapes that must be returned unchanged. */
export function randomBody(random: Random): Body {
  const two = (n: number) => String(n).padStart(2, "0");
  const body: Body = {
    apelido: `${random.text(letters, 16)}${random.pick(["", "-ç", " 🦜"])}`,
    nome: `${random.pick(names)} ${random.text(letters, random.int(1, 80))}`,
    nascimento: `${random.int(1900, 2019)}-${two(random.int(1, 12))}-${two(random.int(1, 28))}`,
  };
  const words = Array.from({ length: random.int(1, 8) }, () => random.text(letters, random.int(1, 31)));
  const stack = random.pick([undefined, null, [], words]);
  if (stack !== undefined) body.stack = stack;
  return body;
}
