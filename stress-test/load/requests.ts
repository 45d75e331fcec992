import { generate, type Random } from "../data/payloads.ts";
import { type Pessoa, readPessoa } from "../data/reference-contract.ts";
import { brief } from "../measure/audit.ts";
import { type Answer, headerOf, type Request } from "./http.ts";

/** Checks an answer with the right status. Returns its fault, "" if there is none. */
type Further = (answer: Answer) => string;

const fine: Further = () => "";

function expectStatus(accept: readonly number[], further: Further): Further {
  return (answer) => {
    const { status, body } = answer;
    if (accept.includes(status)) return further(answer);
    const problem = status >= 400 ? brief(body.toString()) : "";
    return `expected ${accept.join(" or ")}, got ${status} ${problem}`.trimEnd();
  };
}

/** A create of `payload`, sent as it is. A 201 has to have a Location; then `further` checks the answer. */
export function create(payload: string, accept: readonly number[] = [201], further: Further = fine): Request {
  const check = expectStatus(accept, (answer) => {
    if (answer.status !== 201) return "";
    return locationOf(answer) === "" ? "201 without a Location" : further(answer);
  });
  return { kind: "create", method: "POST", path: "/pessoas", body: payload, check };
}

/** The path in an answer's Location; "" if there is none. */
export function locationOf(answer: Answer): string {
  const location = headerOf(answer, "location") ?? "";
  return location.startsWith("/") || !URL.canParse(location) ? location : new URL(location).pathname;
}

/** A read of the person at the path `location`, whose id is its last part. */
export function read(
  location: string,
  further: Further = holds(location.slice(location.lastIndexOf("/") + 1)),
): Request {
  return { kind: "read", method: "GET", path: location, check: expectStatus([200], further) };
}

export function search(term: string, further: Further = holds("[")): Request {
  const path = `/pessoas?t=${encodeURIComponent(term)}`;
  return { kind: "search", method: "GET", path, check: expectStatus([200], further) };
}

export function searchWithoutTerm(further: Further = fine): Request {
  return { kind: "search without t", method: "GET", path: "/pessoas", check: expectStatus([400], further) };
}

/** The body contains `text`. */
export function holds(text: string): Further {
  return ({ body }) => (body.includes(text) ? "" : "the body does not hold what it has to");
}

/** The contest's peak: requests of each kind a second. */
export const contestShares = { create: 600, read: 600, search: 100, "search without t": 40 };

type ContestRow = { payload: string; accept: readonly number[] };

/**
 * The first requests of the contest's users. A create sends the next of `rows`. After a 201, which `created` checks,
 * the same user reads the person 1 to 30 ms later. Throws if no row is left.
 */
export function contestUsers(
  rows: readonly ContestRow[],
  terms: readonly string[],
  random: Random,
  created: Further,
): Record<"create" | "search" | "search without t", () => Request> {
  let [sent, asked] = [0, 0];
  return {
    create() {
      const row = rows[sent++];
      if (!row) throw new Error("there are not enough payloads");
      const afterMs = random.int(1, 30);
      const follow: Request["follow"] = (answer) =>
        answer.status === 201 ? { request: read(locationOf(answer)), afterMs } : undefined;
      return { ...create(row.payload, row.accept, created), follow };
    },
    search: () => search(terms[asked++ % terms.length] as string),
    "search without t": () => searchWithoutTerm(),
  };
}

/** Kinds in proportion to their shares, evenly spread. Begins with the first kind. */
export function mix<Kind extends string>(shares: Readonly<Record<Kind, number>>): () => Kind {
  const kinds = Object.entries(shares) as [Kind, number][];
  const total = kinds.reduce((sum, [, share]) => sum + share, 0);
  const goldenRatio = (Math.sqrt(5) - 1) / 2;
  let made = 0;
  return () => {
    let place = ((made++ * goldenRatio) % 1) * total;
    for (const [kind, share] of kinds) {
      place -= share;
      if (place < 0) return kind;
    }
    return (kinds[0] as [Kind, number])[0];
  };
}

/**
 * Valid persons without end: at most `shapes` distinct ones in the contest's distribution, each time with a new
 * apelido, which begins with `prefix`. With a digit in it, the apelido is in none of the contest's payloads.
 */
export function persons(seed: number, shapes: number, prefix: string): () => Pessoa {
  const valid = generate(seed, shapes, 0)
    .rows.map(({ payload }) => readPessoa(payload))
    .filter((pessoa) => typeof pessoa === "object");
  let made = 0;
  return () => {
    const pessoa = valid[made % valid.length] as Pessoa;
    const unique = `${prefix}${(made++).toString(36).padStart(5, "0")}`;
    const apelido = unique + pessoa.apelido.slice(unique.length);
    return { ...pessoa, apelido };
  };
}
