/**
 * A second implementation of the contract's rules. It shares no code with the server, so that tests and measurements
 * compare two independent implementations.
 */

export type Status = 201 | 400 | 422;

/** Number of answers of each kind. */
export type Answers = Record<Status, number>;

/** A request body with its right answers. */
export type Row = {
  /** JSON text, sent as it is. */
  payload: string;
  /** The answer when all rows are sent in order to an empty registry. */
  status: Status;
  /** All right answers under load, where rows with the same apelido may arrive in any order. */
  accept: readonly Status[];
};

export type Pessoa = { apelido: string; nome: string; nascimento: string; stack: string[] | null };

/** The right answers to payloads, which are JSON texts. */
export function expectAnswers(payloads: readonly string[]): Row[] {
  const pessoas = payloads.map(readPessoa);
  const uses = new Map<string, number>();
  for (const pessoa of pessoas) {
    if (typeof pessoa === "object") uses.set(pessoa.apelido, (uses.get(pessoa.apelido) ?? 0) + 1);
  }
  const taken = new Set<string>();
  return payloads.map((payload, index) => {
    const pessoa = pessoas[index];
    if (typeof pessoa !== "object") {
      const status = pessoa ?? 400;
      return { payload, status, accept: [status] };
    }
    const status = taken.has(pessoa.apelido) ? 422 : 201;
    taken.add(pessoa.apelido);
    return { payload, status, accept: uses.get(pessoa.apelido) === 1 ? [201] : [201, 422] };
  });
}

/**
 * Number of answers of each kind to the first `k` rows. The order does not matter, because each valid apelido gets one
 * 201. `expectedFor(rows, k)[201]` is the maximum count. Throws RangeError if there are fewer rows.
 */
export function expectedFor(rows: readonly Pick<Row, "status">[], k: number = rows.length): Answers {
  if (!Number.isInteger(k) || k < 0 || k > rows.length) {
    throw new RangeError(`k: expected a whole number from 0 to ${rows.length}, got ${k}`);
  }
  const answers: Answers = { 201: 0, 400: 0, 422: 0 };
  for (const { status } of rows.slice(0, k)) answers[status]++;
  return answers;
}

/** The person in a payload; 400 or 422 if it is invalid. Taken apelidos are not checked. */
export function readPessoa(payload: string): Pessoa | 400 | 422 {
  let body: unknown;
  try {
    body = JSON.parse(payload);
  } catch {
    return 400;
  }
  if (typeof body !== "object" || body === null || Array.isArray(body)) return 400;
  const { apelido, nome, nascimento, stack } = body as Record<string, unknown>;

  // A wrong type anywhere wins over any 422, so all types come first.
  for (const text of [apelido, nome, nascimento]) {
    if (text !== undefined && text !== null && typeof text !== "string") return 400;
  }
  if (stack !== undefined && stack !== null && !isStrings(stack)) return 400;

  if (!isText(apelido, 32) || !isText(nome, 100) || typeof nascimento !== "string" || !isDay(nascimento)) {
    return 422;
  }
  if (!isStrings(stack)) return { apelido, nome, nascimento, stack: null };
  return stack.every((entry) => isText(entry, 32)) ? { apelido, nome, nascimento, stack } : 422;
}

/** The first column of a TSV text, without its header. Nothing is quoted. */
export function readColumn(tsv: string): string[] {
  const [header = "", ...lines] = tsv.replace(/\r?\n$/, "").split(/\r?\n/);
  return header.includes("\t") ? lines.map((line) => line.split("\t", 1)[0] ?? "") : lines;
}

/** Whether the contract's search for `term` finds the person. */
export function holds(person: Pick<Pessoa, "apelido" | "nome" | "stack">, term: string): boolean {
  const wanted = term.toLowerCase();
  return [person.apelido, person.nome, ...(person.stack ?? [])].some((text) =>
    text.toLowerCase().includes(wanted),
  );
}

function isStrings(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((entry) => typeof entry === "string");
}

function isText(value: unknown, maxCharacters: number): value is string {
  if (typeof value !== "string" || value === "" || value.includes("\0") || !value.isWellFormed())
    return false;
  return [...value].length <= maxCharacters; // code points, not UTF-16 units
}

function isDay(text: string): boolean {
  const match = /^([0-9]{4})-([0-9]{2})-([0-9]{2})$/.exec(text);
  if (!match) return false;
  const [year = 0, month = 0, day = 0] = match.slice(1).map(Number);
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, leap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0;
  return year >= 1 && day >= 1 && day <= days;
}
