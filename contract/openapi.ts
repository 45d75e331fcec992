import { STATUS_CODES } from "node:http";
import { z } from "zod";
import { version } from "../package.json";
import { idOf, NovaPessoa } from "./pessoa.ts";

/** OpenAPI 3.1. Built on first use, because most servers never need it. */
export function openApi(): string {
  text ??= JSON.stringify(document());
  return text;
}
let text: string | undefined;

const ana = { apelido: "ana", nome: "Ana Barbosa", nascimento: "1985-09-23", stack: ["Node", "Postgres"] };
const anaStored = { id: idOf(ana.apelido), ...ana };

const bodies = {
  "with a stack": { value: ana },
  "without one": { value: { apelido: "josé", nome: "José Roberto", nascimento: "2000-10-01", stack: null } },
};

/** Exactly what the server answers: a test compares them. */
function problem(status: number, detail: string, more: object = {}) {
  return { value: { type: "about:blank", title: STATUS_CODES[status], status, detail, ...more } };
}

/** `messages`: by field. */
function invalid(status: number, messages: Record<string, string>, location?: string) {
  const errors = Object.entries(messages).map(([field, message]) => ({ field, message }));
  const detail = errors.map(({ field, message }) => `${field}: ${message}`).join("; ");
  return problem(status, detail, { errors, location });
}

/**
 * From the zod schemas that the server checks with. Patterns mean the same in RE2, Python, Java and ECMA-262. A format
 * has no pattern beside it.
 */
function schemas() {
  const { stack, ...members } = NovaPessoa.shape;
  const id = z.uuid().describe("A UUIDv5 of the apelido");
  const error = z.strictObject({
    field: z.string().describe("Such as nome or stack[1]"),
    message: z.string(),
  });
  const named = {
    NovaPessoa,
    Pessoa: z
      .strictObject({ id, ...members, stack: stack.unwrap() })
      .meta({ description: "A person. It never changes.", examples: [anaStored] }),
    Problem: z
      .strictObject({
        type: z.literal("about:blank"),
        title: z.string().describe("The status in words"),
        status: z.int().min(400).max(599),
        detail: z.string().describe("The problem in words"),
        errors: z.array(error).optional().describe("All problems of the fields, up to 100"),
        location: z.string().optional().describe("The path of the person with the apelido, if it is taken"),
      })
      .describe("Why a request failed (RFC 9457)"),
  };
  return Object.fromEntries(
    Object.entries(named).map(([name, schema]) => {
      const { $schema, ...rest } = z.toJSONSchema(schema, {
        io: "input",
        target: "draft-2020-12",
        override: ({ jsonSchema }) => {
          if (jsonSchema.format) delete jsonSchema.pattern;
        },
      });
      return [name, rest];
    }),
  );
}

const ref = (path: string) => ({ $ref: `#/components/${path}` });

function failure(description: string, examples: object, headers?: object) {
  const content = { "application/problem+json": { schema: ref("schemas/Problem"), examples } };
  return { description, headers, content };
}

function document() {
  const json = (schema: object, example: unknown) => ({ "application/json": { schema, example } });
  const header = (description: string, example: string) => ({
    description,
    required: true,
    schema: { type: "string" },
    example,
  });
  const plain = (description: string, schema: object) => ({
    description,
    headers: { "Cache-Control": header("Never cached", "no-store") },
    content: { "text/plain": { schema } },
  });
  const outages = { 500: ref("responses/Failed"), 503: ref("responses/Unavailable") };
  const word = (value: string) => ({ type: "string", const: value });

  return {
    openapi: "3.1.1",
    info: {
      title: "pessoas",
      version,
      summary: "A people registry for the Rinha de Backend 2023 Q3",
      description:
        "HEAD works wherever GET does. Other methods get 405 with `Allow`, other paths 404, both with a problem as the " +
        "body. One trailing slash is ignored. A character is a Unicode code point. Strings are stored as sent: not " +
        "trimmed, not normalised.",
      contact: { name: "The pessoas authors" },
      license: { name: "MIT", identifier: "MIT" },
    },
    servers: [{ url: "/", description: "The registry that serves this document" }],
    security: [],
    tags: [
      { name: "pessoas", description: "The contest's four requests" },
      { name: "operations", description: "Health checks" },
    ],
    paths: {
      "/pessoas": {
        post: {
          operationId: "createPessoa",
          tags: ["pessoas"],
          summary: "Create a person",
          description:
            "A 201 means that the person is on disk: every instance finds, reads and counts it from then on. Of " +
            "any number of simultaneous requests with one apelido exactly one gets 201. After 503, or without an " +
            "answer, send the same request again: a retry never creates a second person. If the first attempt was " +
            "stored, the retry gets 422 with the `location` of the person with the apelido: read it and compare.",
          requestBody: {
            required: true,
            description: "At most 64 KiB",
            content: { "application/json": { schema: ref("schemas/NovaPessoa"), examples: bodies } },
          },
          responses: {
            201: {
              description: "Created, and durable",
              headers: { Location: header("The path of the person", `/pessoas/${anaStored.id}`) },
              content: json(ref("schemas/Pessoa"), anaStored),
            },
            400: failure("Not a JSON object in UTF-8, or a member of a wrong type", {
              "a wrong type": invalid(400, { "stack[1]": "expected a string, got a number" }),
              "not JSON": problem(400, "the body is not JSON in valid UTF-8"),
            }),
            413: failure("A body over 64 KiB", {
              "too large": problem(413, "expected a body of at most 65536 bytes"),
            }),
            415: failure(
              "A Content-Type that is not JSON, or a Content-Encoding other than identity",
              {
                "another type": problem(415, "expected Content-Type: application/json"),
                compressed: problem(415, "expected Content-Encoding: identity, got gzip"),
              },
              {
                "Accept-Encoding": {
                  ...header("The accepted coding, if the Content-Encoding was wrong", "identity"),
                  required: false,
                },
              },
            ),
            422: failure("A missing or invalid value, or a taken apelido", {
              taken: invalid(422, { apelido: "is already taken" }, `/pessoas/${anaStored.id}`),
              "invalid values": invalid(422, {
                nome: "expected a string, got nothing",
                "stack[0]": "expected 1 to 32 characters",
              }),
            }),
            ...outages,
          },
        },
        get: {
          operationId: "searchPessoas",
          tags: ["pessoas"],
          summary: "Search persons",
          description:
            "A person is found as soon as the 201 is sent. If more than 50 match, the answer has any 50 of them.",
          parameters: [
            {
              name: "t",
              in: "query",
              required: true,
              description:
                "Contained, ignoring case, in apelido, nome or one element of stack. It is literal: there are no wildcards.",
              schema: { type: "string", minLength: 1 },
              example: "node",
            },
          ],
          responses: {
            200: {
              description: "Up to 50 persons with the term",
              content: json({ type: "array", maxItems: 50, items: ref("schemas/Pessoa") }, [anaStored]),
            },
            400: failure("No term, or more than one", {
              "no term": invalid(400, { t: "expected one search term, not empty, percent-encoded UTF-8" }),
            }),
            ...outages,
          },
        },
      },
      "/pessoas/{id}": {
        get: {
          operationId: "getPessoa",
          tags: ["pessoas"],
          summary: "Read a person",
          description:
            "A person can be read as soon as the 201 is sent. It never changes: cache it for ever.",
          parameters: [
            {
              name: "id",
              in: "path",
              required: true,
              description: "In upper or lower case",
              schema: { type: "string", format: "uuid" },
              example: anaStored.id,
            },
          ],
          responses: {
            200: {
              description: "The person",
              headers: {
                "Cache-Control": header("Persons never change", "public, max-age=31536000, immutable"),
              },
              content: json(ref("schemas/Pessoa"), anaStored),
            },
            404: failure("No person has this id, or it is no UUID", {
              "unknown id": problem(404, `there is no person with the id ${idOf("nobody")}`),
              "not an id": problem(404, "there is no such person: expected a UUID after /pessoas/"),
            }),
            ...outages,
          },
        },
      },
      "/contagem-pessoas": {
        get: {
          operationId: "countPessoas",
          tags: ["pessoas"],
          summary: "Count persons",
          description: "The number of persons stored now: exact, never estimated and never cached.",
          responses: {
            200: plain("The exact number of persons", { type: "string", pattern: "^[0-9]+$" }),
            ...outages,
          },
        },
      },
      "/healthz": {
        get: {
          operationId: "isAlive",
          tags: ["operations"],
          summary: "Is the process alive?",
          description: "Liveness: it does not ask the database.",
          responses: { 200: plain("It is", word("ok\n")) },
        },
      },
      "/readyz": {
        get: {
          operationId: "isReady",
          tags: ["operations"],
          summary: "Does the database answer?",
          description: "Readiness: 503 while the database does not answer.",
          responses: { 200: plain("It does", word("ready\n")), ...outages },
        },
      },
    },
    components: {
      schemas: schemas(),
      responses: {
        Failed: failure("A bug in the server, never a problem of the request", {
          "a bug in the server": problem(500, "a bug in the server; it is logged"),
        }),
        Unavailable: failure(
          "The database cannot be reached in time, or too many requests are waiting",
          {
            "no database": problem(503, "the database cannot be reached; send the same request again"),
            "too many wait": problem(503, "too many requests are waiting; send the same request again"),
          },
          { "Retry-After": header("Seconds", "1") },
        ),
      },
    },
  };
}
