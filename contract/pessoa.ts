import { z } from "zod";

// Postgres text holds neither U+0000 nor an unpaired surrogate.
const isStorable = (text: string) => !text.includes("\0") && text.isWellFormed();

/** 1 to `max` characters. zod counts code points, as the contract and Postgres do. */
function text(max: number) {
  const length = `expected 1 to ${max} characters`;
  return z
    .string({ error: expected("a string") })
    .min(1, length)
    .max(max, length)
    .refine(isStorable, "must not contain U+0000 or an unpaired surrogate")
    .meta({ pattern: "^[^\\x00]*$" });
}

function expected(type: string) {
  return ({ input }: { input?: unknown }) => `expected ${type}, got ${nameOfType(input)}`;
}

function nameOfType(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

const day = "expected a calendar day as YYYY-MM-DD, from 0001-01-01 to 9999-12-31";

const storable = "No U+0000 and no unpaired surrogate";

/** The body of a create. Descriptions and patterns are for OpenAPI. */
export const NovaPessoa = z
  .object(
    {
      apelido: text(32).describe(`The nickname, unique, case-sensitive. ${storable}`),
      nome: text(100).describe(`The name. ${storable}`),
      nascimento: z.iso
        .date({ error: (issue) => (issue.code === "invalid_type" ? expected("a string")(issue) : day) })
        .refine((date) => !date.startsWith("0000"), day)
        .describe("The day of birth, a day of the Gregorian calendar from 0001-01-01 to 9999-12-31"),
      stack: z
        .array(text(32), { error: expected("an array or null") })
        .nullable()
        .describe(`Technologies, in the order sent, with repeats. ${storable} in an element`)
        .optional(),
    },
    { error: expected("a JSON object") },
  )
  .describe("A person to create. Unknown members are ignored, an id too.");

/** `id`: a UUID in lower case; `nascimento`: `YYYY-MM-DD`. */
export type Pessoa = {
  id: string;
  apelido: string;
  nome: string;
  nascimento: string;
  stack: string[] | null;
};

export type FieldError = { field: string; message: string };
/** 400 for a wrong type anywhere, else 422. `errors` has all problems. */
type Refusal = { status: 400 | 422; detail: string; errors?: FieldError[] };

// Never change it: every existing id depends on it.
const namespace = "8f2f2d5e-93a5-4d0c-9c53-6b8a1a3c7e19";

export const idOf = (apelido: string): string => Bun.randomUUIDv5(apelido, namespace);

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export function parsePessoa(body: Uint8Array): Pessoa | Refusal {
  let json: unknown;
  try {
    json = JSON.parse(utf8.decode(body));
  } catch {
    return { status: 400, detail: "the body is not JSON in valid UTF-8" };
  }
  if (isOrdinary(json)) return pessoaOf(json);
  const omitted = omitWrongElements(json);
  const { data, error } = NovaPessoa.safeParse(json);
  if (error) return refusal(error.issues, json, omitted);
  return pessoaOf(data);
}

/** Members in the contract's order, for JSON.stringify. */
function pessoaOf({ apelido, nome, nascimento, stack }: z.infer<typeof NovaPessoa>): Pessoa {
  return { id: idOf(apelido), apelido, nome, nascimento, stack: stack ?? null };
}

// Of the surrogates only unpaired ones: u makes a character of a pair.
const text32 = /^[^\0\ud800-\udfff]{1,32}$/u;
const text100 = /^[^\0\ud800-\udfff]{1,100}$/u;
const ordinaryDay = /^(19|20)\d\d-(0[1-9]|1[0-2])-(0[1-9]|1\d|2[0-8])$/;

/** Accepts most persons in a tenth of the time, and none that NovaPessoa rejects. */
export function isOrdinary(json: unknown): json is z.infer<typeof NovaPessoa> {
  if (json === null || typeof json !== "object") return false;
  const { apelido, nome, nascimento, stack } = json as Record<string, unknown>;
  return (
    fits(apelido, text32) &&
    fits(nome, text100) &&
    fits(nascimento, ordinaryDay) &&
    (stack == null || (Array.isArray(stack) && stack.every((each) => fits(each, text32))))
  );
}

const fits = (value: unknown, pattern: RegExp) => typeof value === "string" && pattern.test(value);

// A body can hold 30,000 errors. In zod they take 40 times as long as the rest of the request.
const maxErrors = 100;

/** Ends the stack with its hundredth wrong element. Returns the wrong ones after it. */
function omitWrongElements(json: unknown): unknown[] {
  const { stack } = (json ?? {}) as { stack?: unknown };
  if (!Array.isArray(stack)) return [];
  let wrong = 0;
  const last = stack.findIndex((each) => !fits(each, text32) && ++wrong === maxErrors);
  return last === -1 ? [] : stack.splice(last + 1).filter((each) => !fits(each, text32));
}

function refusal(issues: z.core.$ZodIssue[], json: unknown, omitted: unknown[]): Refusal {
  if (issues.some(({ path }) => path.length === 0)) {
    return { status: 400, detail: `the body is not a JSON object: ${issues[0]?.message}` };
  }
  const absent = (path: PropertyKey[]) =>
    path.length === 1 && (json as Record<PropertyKey, unknown>)[path[0] as string] == null;
  const wrongType =
    issues.some(({ code, path }) => code === "invalid_type" && !absent(path)) ||
    omitted.some((each) => typeof each !== "string");
  const errors = issues.slice(0, maxErrors).map(({ path, message }) => ({ field: fieldName(path), message }));
  const more = issues.length - errors.length + omitted.length;
  const detail =
    errors.map(({ field, message }) => `${field}: ${message}`).join("; ") +
    (more ? `; and ${more} more` : "");
  return { status: wrongType ? 400 : 422, detail, errors };
}

/** `["stack", 1]` becomes `stack[1]`. */
function fieldName(path: PropertyKey[]): string {
  return path.map((key) => (typeof key === "number" ? `[${key}]` : String(key))).join("");
}

/** Members in the contract's order. `stackJson`: the JSON text of the stack. */
export function toJson(pessoa: Omit<Pessoa, "stack">, stackJson: string | null): string {
  const { id, apelido, nome, nascimento } = pessoa;
  return `{"id":"${id}","apelido":${JSON.stringify(apelido)},"nome":${JSON.stringify(nome)},"nascimento":"${nascimento}","stack":${stackJson}}`;
}
