import { afterAll, beforeAll, describe, expect, spyOn, test } from "bun:test";
import { Validator } from "@seriousme/openapi-schema-validator";
import { Ajv2020 } from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import fc from "fast-check";
import { parsePessoa } from "../../contract/pessoa.ts";
import { version } from "../../package.json";
import { type client, newPessoa } from "../helpers/requests.ts";
import { query, serve } from "../helpers/support.ts";

type Media = { schema: object; example?: unknown; examples?: Record<string, { value: unknown }> };
type Answer = {
  description: string;
  headers?: Record<string, { required: boolean; schema: object; example: string }>;
  content: Record<string, Media>;
};
type Operation = {
  operationId: string;
  parameters?: { schema: object; example: unknown }[];
  requestBody?: { content: { "application/json": Required<Media> } };
  responses: Record<string, Answer | { $ref: string }>;
};
type Document = {
  openapi: string;
  info: { version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { responses: Record<string, Answer>; schemas: Record<string, object> };
};

const registry = await serve();
afterAll(registry.stop);
const document = (await (await registry.get("/openapi.json")).json()) as Document;
const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => [method.toUpperCase(), path, operation] as const),
);
const ajv = new Ajv2020({ allErrors: true });
addFormats.default(ajv);
for (const [name, schema] of Object.entries(document.components.schemas)) {
  ajv.addSchema({ $id: `schema:${name}`, ...schema });
}

/** The errors of `value` against `schema`, or null. Its references point into the document. */
function mistakes(schema: object, value: unknown) {
  const absolute = JSON.parse(
    JSON.stringify(schema).replaceAll("#/components/schemas/", "schema:"),
  ) as object;
  const validate = ajv.compile(absolute);
  return validate(value) ? null : validate.errors;
}

function answers(operation: Operation): [status: string, Answer][] {
  return Object.entries(operation.responses).map(([status, given]) => {
    if (!("$ref" in given)) return [status, given];
    return [status, document.components.responses[given.$ref.split("/").at(-1) as string] as Answer];
  });
}

const examplesOf = ({ example, examples = {} }: Media) => [
  ...(example === undefined ? [] : [example]),
  ...Object.values(examples).map(({ value }) => value),
];

describe("GET /openapi.json", () => {
  test("is a valid OpenAPI 3.1 document of this version, as JSON", async () => {
    const response = await registry.get("/openapi.json");
    expect(response.headers.get("content-type")).toBe("application/json");
    const validator = new Validator();
    expect(await validator.validate((await response.json()) as Document)).toEqual({ valid: true });
    expect(validator.version).toBe("3.1");
    expect(document.info.version).toBe(version);
  });

  test("every example is valid against its schema, and every operationId is unique", () => {
    let checked = 0;
    for (const [method, path, operation] of operations) {
      const contents = answers(operation).flatMap(([, { content }]) => Object.values(content));
      for (const media of [...contents, ...Object.values(operation.requestBody?.content ?? {})]) {
        for (const example of examplesOf(media)) {
          expect([method, path, mistakes(media.schema, example)]).toEqual([method, path, null]);
          checked++;
        }
      }
      for (const { schema, example } of operation.parameters ?? []) {
        expect(mistakes(schema, example)).toBeNull();
      }
    }
    expect(checked).toBeGreaterThan(20);
    expect(new Set(operations.map(([, , { operationId }]) => operationId)).size).toBe(operations.length);
  });

  test("lists exactly the methods that the server allows", async () => {
    for (const [path, methods] of Object.entries(document.paths)) {
      const response = await registry.request(path.replace("{id}", "1"), { method: "DELETE" });
      const named = Object.keys(methods).flatMap((name) => (name === "get" ? ["GET", "HEAD"] : ["POST"]));
      expect(response.headers.get("allow")?.split(", ").sort()).toEqual(named.sort());
    }
  });

  // RE2, Python, Java and ECMA-262 differ in lookaround, \\p, \\u and \\d.
  const portable = /^(?:[^\\()]|\((?:\?:|(?!\?))|\)|\\x[0-9A-Fa-f]{2}|\\[\^$.*+?()[\]{}|/\\])*$/;

  test.each([
    ["^[^\\x00]*$", true],
    ["^(?:[0-9]{4}|a\\.b)$", true],
    ["(?!0000)", false],
    ["(?<=a)b", false],
    ["(?<name>a)", false],
    ["\\p{Cs}", false],
    ["\\u0000", false],
    ["\\d+", false],
  ])("the pattern %s: portable %p", (pattern, expected) => expect(portable.test(pattern)).toBe(expected));

  test("its patterns are portable, and no schema has both a pattern and a format", () => {
    const patterns: string[] = [];
    JSON.stringify(document, (_, value) => {
      if (typeof value?.pattern === "string") {
        patterns.push(value.pattern);
        expect(value).not.toHaveProperty("format");
      }
      return value;
    });
    expect(patterns.length).toBeGreaterThan(5);
    for (const pattern of patterns) expect([pattern, portable.test(pattern)]).toEqual([pattern, true]);
  });

  test("its NovaPessoa accepts the same bodies as the server, except for the rules that only its descriptions have", () => {
    const texts = fc.oneof(
      fc.constantFrom("", "a", "a".repeat(32), "a".repeat(33), "🦜".repeat(33), "\0", "a\ud83d", "\ude00a"),
      fc.string({ unit: "grapheme", maxLength: 40 }),
      fc.string({ unit: "binary", maxLength: 101 }),
    );
    const days = fc.oneof(
      fc.constantFrom("2024-02-29", "2023-02-29", "0000-01-01", "0001-01-01", "9999-12-31", "1-1-1", " "),
      fc.date({ noInvalidDate: true, min: new Date(0) }).map((date) => date.toISOString().slice(0, 10)),
    );
    const anything = fc.oneof({ weight: 9, arbitrary: texts }, fc.constantFrom(null, 1, true, {}, ["a"]));
    const bodies = fc.record(
      {
        apelido: anything,
        nome: anything,
        nascimento: fc.oneof({ weight: 9, arbitrary: days }, fc.constantFrom(null, 1)),
        stack: fc.oneof(fc.array(anything, { maxLength: 3 }), fc.constantFrom(null, "a", {})),
        extra: fc.jsonValue(),
      },
      { requiredKeys: ["apelido", "nome", "nascimento"] },
    );
    const validate = ajv.compile({ $ref: "schema:NovaPessoa" });
    const described = (body: Record<string, unknown>) =>
      /^0000/.test(String(body.nascimento)) ||
      [body.apelido, body.nome, body.stack].flat().some((each) => !String(each).isWellFormed());
    fc.assert(
      fc.property(bodies, (body) => {
        const accepted = !("status" in parsePessoa(Buffer.from(JSON.stringify(body))));
        const valid = validate(JSON.parse(JSON.stringify(body)));
        if (described(body)) expect(accepted).toBe(false);
        else expect(valid).toBe(accepted);
      }),
      { numRuns: 2000 },
    );
  });
});

describe("the server answers as the document says", () => {
  // Operations with the statuses of their answers. The last test expects every status of the document.
  const seen = new Set<string>();
  let complaints: { mockRestore(): void };
  beforeAll(() => {
    complaints = spyOn(console, "error").mockImplementation(() => {}); // broken servers log errors
  });
  afterAll(() => complaints.mockRestore());

  /** Checks an answer against the document and returns its body. */
  async function check(method: string, path: string, status: number, response: Response): Promise<unknown> {
    const operation = document.paths[path]?.[method.toLowerCase()] as Operation;
    const [, answer] = answers(operation).find(([code]) => code === String(response.status)) ?? [];
    expect([method, path, response.status]).toEqual([method, path, status]);
    const type = (response.headers.get("content-type") as string).split(";")[0] as string;
    const media = answer?.content[type] as Media;
    const body: unknown = type.endsWith("json") ? await response.json() : await response.text();
    expect([body, mistakes(media.schema, body)]).toEqual([body, null]);
    for (const [name, { schema, required }] of Object.entries(answer?.headers ?? {})) {
      const value = response.headers.get(name);
      if (required || value !== null) expect([name, mistakes(schema, value)]).toEqual([name, null]);
    }
    seen.add(`${method} ${path} ${status}`);
    return body;
  }

  function examples(method: string, path: string, status: number): Record<string, unknown> {
    const operation = document.paths[path]?.[method.toLowerCase()] as Operation;
    const [, answer] = answers(operation).find(([code]) => code === String(status)) ?? [];
    const named = Object.values(answer?.content ?? {})[0]?.examples ?? {};
    return Object.fromEntries(Object.entries(named).map(([name, { value }]) => [name, value]));
  }

  test("to a create, exactly as its examples", async () => {
    const { post, get } = registry;
    const examplesOfBodies = document.paths["/pessoas"]?.post?.requestBody?.content["application/json"]
      .examples as Record<string, { value: object }>;
    const [first, second] = Object.values(examplesOfBodies).map(({ value }) => value);
    const created = await post(first);
    const stored = await check("POST", "/pessoas", 201, created);
    const described = document.paths["/pessoas"]?.post?.responses[201] as Answer;
    expect(stored).toEqual(described.content["application/json"]?.example);
    expect(created.headers.get("location")).toBe(described.headers?.Location?.example as string);
    await check("POST", "/pessoas", 201, await post(second));

    const refused = {
      taken: await post(first),
      "invalid values": await post({
        apelido: "a",
        nascimento: "2000-01-01",
        stack: ["x".repeat(33)],
      }),
      "a wrong type": await post({ ...newPessoa(), stack: ["a", 1] }),
      "not JSON": await post("{"),
      "too large": await post("x".repeat(65_537)),
      "another type": await post("<a/>", { "Content-Type": "application/xml" }),
      compressed: await post("", { "Content-Type": "application/json", "Content-Encoding": "gzip" }),
    };
    const expected = Object.assign({}, ...[400, 413, 415, 422].map((n) => examples("POST", "/pessoas", n)));
    expect(Object.keys(refused).sort()).toEqual(Object.keys(expected).sort());
    for (const [name, response] of Object.entries(refused)) {
      const { status } = expected[name] as { status: number };
      expect(await check("POST", "/pessoas", status, response)).toEqual(expected[name]);
    }

    const { id } = stored as { id: string };
    const path = "/pessoas/{id}";
    const read = await get(`/pessoas/${id}`);
    expect(read.headers.get("cache-control")).toContain("immutable");
    expect(await check("GET", path, 200, read)).toEqual(stored);
    const absent = examples("GET", path, 404) as Record<string, { detail: string }>;
    const nobody = absent["unknown id"]?.detail.split(" ").at(-1);
    expect(await check("GET", path, 404, await get(`/pessoas/${nobody}`))).toEqual(absent["unknown id"]);
    expect(await check("GET", path, 404, await get("/pessoas/1"))).toEqual(absent["not an id"]);
  });

  test("to the other requests", async () => {
    const { get } = registry;
    await check("GET", "/pessoas", 200, await get("/pessoas?t=a"));
    const withoutTerm = await check("GET", "/pessoas", 400, await get("/pessoas"));
    expect(withoutTerm).toEqual(examples("GET", "/pessoas", 400)["no term"]);
    for (const path of ["/contagem-pessoas", "/healthz", "/readyz"]) {
      await check("GET", path, 200, await get(path));
    }
    for (const response of [await get("/nothing"), await registry.request("/pessoas", { method: "PUT" })]) {
      expect(mistakes({ $ref: "#/components/schemas/Problem" }, await response.json())).toBeNull();
    }
  });

  test("when the queue is full", async () => {
    await using tiny = await serve({}, { queueLimit: 1, batchSize: 1 });
    const created = await Promise.all(Array.from({ length: 60 }, () => tiny.post(newPessoa())));
    const refused = created.find(({ status }) => status === 503) as Response;
    const body = await check("POST", "/pessoas", 503, refused);
    expect(body).toEqual(examples("POST", "/pessoas", 503)["too many wait"]);
  });

  const all = ({ post, get }: ReturnType<typeof client>) => ({
    "POST /pessoas": () => post(newPessoa()),
    "GET /pessoas": () => get("/pessoas?t=a"),
    "GET /pessoas/{id}": () => get(`/pessoas/${crypto.randomUUID()}`),
    "GET /contagem-pessoas": () => get("/contagem-pessoas"),
    "GET /readyz": () => get("/readyz"),
  });

  test("while the database is unreachable", async () => {
    await using away = await serve({ DATABASE_URL: "postgres://nobody@127.0.0.1:1/nothing" });
    for (const [name, send] of Object.entries(all(away))) {
      const [method, path] = name.split(" ") as [string, string];
      const body = await check(method, path, 503, await send());
      expect(body).toEqual(examples(method, path, 503)["no database"]);
    }
  });

  test("after a bug", async () => {
    // No bug is known: a wrong table makes every statement fail unexpectedly.
    await using failing = await serve();
    await query(failing.databaseUrl, "alter table pessoas rename to them; create type pessoas as (id uuid)");
    for (const [name, send] of Object.entries(all(failing))) {
      const [method, path] = name.split(" ") as [string, string];
      const body = await check(method, path, 500, await send());
      expect(body).toEqual(examples(method, path, 500)["a bug in the server"]);
    }
  });

  test("with every status of every operation, each tested above", () => {
    const named = operations.flatMap(([method, path, { responses }]) =>
      Object.keys(responses).map((status) => `${method} ${path} ${status}`),
    );
    expect([...seen].sort()).toEqual(named.sort());
  });
});
