import { afterAll, expect, test } from "bun:test";
import fc from "fast-check";
import { isOrdinary, NovaPessoa, parsePessoa } from "../../contract/pessoa.ts";
import { readPessoa } from "../../stress-test/data/reference-contract.ts";
import { expectFound, hostile, nascimento, person, termsOf } from "../helpers/random-persons.ts";
import { isControl, targets } from "../helpers/request-targets.ts";
import { type Found, rawRequest } from "../helpers/requests.ts";
import { serve, twins } from "../helpers/support.ts";

const { one: registry, other, stop } = await twins();
afterAll(stop);

const member = fc.oneof(
  fc.jsonValue(),
  fc.string({ unit: "binary", maxLength: 110 }),
  fc.string({ unit: hostile, maxLength: 34 }),
  nascimento,
  fc.array(fc.oneof(fc.string({ unit: "binary", maxLength: 34 }), fc.jsonValue()), { maxLength: 3 }),
);
const nearlyPerson = fc
  .tuple(
    person,
    fc.dictionary(fc.constantFrom("apelido", "nome", "nascimento", "stack", "id"), member, { maxKeys: 2 }),
  )
  .map(([valid, changes]) => ({ ...valid, ...changes }));

test("a body of any JSON value is accepted exactly when a second implementation of the contract accepts it", async () => {
  await using fresh = await serve();
  const taken = new Set<string>();
  await fc.assert(
    fc.asyncProperty(
      fc.oneof({ weight: 3, arbitrary: nearlyPerson }, { weight: 1, arbitrary: fc.jsonValue() }),
      async (value) => {
        const body = JSON.stringify(value);
        const read = readPessoa(body);
        const isTaken = typeof read === "object" && taken.has(read.apelido);
        if (typeof read === "object") taken.add(read.apelido);
        expect((await fresh.post(body)).status).toBe(typeof read === "number" ? read : isTaken ? 422 : 201);
      },
    ),
    { numRuns: 1500 },
  );
  expect(await fresh.count()).toBe(taken.size);
});

test("zod accepts every person that the quick check accepts, and returns the same values", () => {
  const near = (max: number) => {
    const plain = fc.string({
      unit: fc.constantFrom(..."aÉ ß\n\uffff%\u007f".repeat(20), "\0", "\ud83d"),
      maxLength: max + 1,
    });
    const long = fc.string({ unit: hostile, minLength: max - 1, maxLength: max + 1 });
    return fc.oneof({ weight: 6, arbitrary: plain }, long, member);
  };
  const day = fc.oneof(
    fc.tuple(
      fc.integer({ min: 1898, max: 2101 }),
      fc.integer({ max: 13, min: 0 }),
      fc.integer({ max: 32, min: 0 }),
    ),
    fc.tuple(fc.constantFrom(1900, 2000, 2023, 2024), fc.constant(2), fc.constantFrom(28, 29, 30)),
  );
  const date = day.map(([y, m, d]) => `${y}-${String(m).padStart(2, "0")}-${String(d).padStart(2, "0")}`);
  const likely = fc.record(
    {
      apelido: near(32),
      nome: near(100),
      nascimento: fc.oneof({ weight: 6, arbitrary: date }, member),
      stack: fc.oneof(fc.array(near(32), { maxLength: 3 }), fc.constant(null), fc.constant(null), member),
      id: member,
    },
    { requiredKeys: ["apelido", "nome", "nascimento"] },
  );
  let ordinary = 0;
  fc.assert(
    fc.property(fc.oneof(likely, likely, fc.jsonValue()), (value) => {
      const json: unknown = JSON.parse(JSON.stringify(value));
      if (!isOrdinary(json)) return;
      ordinary++;
      const { data } = NovaPessoa.safeParse(json);
      expect(data).toEqual({
        apelido: json.apelido,
        nome: json.nome,
        nascimento: json.nascimento,
        ...(json.stack === undefined ? {} : { stack: json.stack }),
      });
    }),
    { numRuns: 5000 },
  );
  expect(ordinary).toBeGreaterThan(100);
});

test("a stack with many wrong elements gets the status, the first errors and the number of errors that zod finds", () => {
  const element = fc.constantFrom("a", "🦜".repeat(32), "", "b".repeat(33), "\0", "\ud83d", 1, null, {});
  const common = fc.constantFrom("", "c".repeat(33));
  const elements = fc.array(fc.oneof({ weight: 9, arbitrary: common }, { weight: 1, arbitrary: element }), {
    maxLength: 400,
    size: "max",
  });
  let omitted = 0;
  fc.assert(
    fc.property(elements, fc.constantFrom("Ana", "", 1, undefined), (stack, nome) => {
      const person = { apelido: "ana", nome, nascimento: "1990-01-01", stack };
      const issues = NovaPessoa.safeParse(person).error?.issues ?? [];
      const parsed = parsePessoa(Buffer.from(JSON.stringify(person)));
      if (issues.length === 0) return expect("status" in parsed).toBe(false);
      const { status, detail, errors } = parsed as Extract<typeof parsed, { status: number }>;
      const isTyped = nome === 1 || stack.some((each) => typeof each !== "string");
      expect(status).toBe(isTyped ? 400 : 422);
      expect(errors?.map(({ message }) => message)).toEqual(
        issues.slice(0, 100).map(({ message }) => message),
      );
      expect(errors?.map(({ field }) => field)).toEqual(
        issues
          .slice(0, 100)
          .map(({ path: [member, i] }) => (i === undefined ? String(member) : `stack[${String(i)}]`)),
      );
      if (issues.length > 100) {
        omitted++;
        expect(detail).toEndWith(`; and ${issues.length - 100} more`);
      }
    }),
    { numRuns: 1000 },
  );
  expect(omitted).toBeGreaterThan(100);
});

test("no body of random bytes gets a 5xx", async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 300 }), async (bytes) => {
      const { status } = await registry.post(Buffer.concat([Buffer.from('{"nome":"'), bytes]));
      expect([400, 422]).toContain(status);
    }),
    { numRuns: 300 },
  );
});

test("every random request target gets an answer, and none a 5xx", async () => {
  const methods = fc.constantFrom("GET", "GET", "HEAD", "POST", "DELETE", "TRACE");
  await fc.assert(
    fc.asyncProperty(methods, targets, async (method, target) => {
      const answer = await rawRequest(registry.url, method, target);
      // Bun reads a control character as the end of the target and answers 505 for the version.
      expect(answer).toMatch(isControl(target) ? /^HTTP\/1\.1 ([2-4]\d\d|505) / : /^HTTP\/1\.1 [2-4]\d\d /);
    }),
    { numRuns: 1000 },
  );
});

test("a stored person is the same in the answer, in a read on both instances and in a search", async () => {
  await fc.assert(
    fc.asyncProperty(person, async (sent) => {
      const response = await registry.post(sent);
      if (response.status === 422) return; // fast-check sends a person again when it shrinks
      expect(response.status).toBe(201);
      const created = (await response.json()) as Found;
      expect(created).toEqual({ ...sent, id: created.id, stack: sent.stack ?? null });
      for (const instance of [registry, other]) {
        expect(await (await instance.get(`/pessoas/${created.id}`)).json()).toEqual(created);
      }
      const found = await other.search(sent.apelido);
      expect(found.length === 50 || found.some(({ id }) => id === created.id)).toBe(true);
    }),
    { numRuns: 200 },
  );
});

test.each([
  ["memory", 50_000],
  ["memory, then the index", 60],
  ["the index", 0],
])("a search finds exactly the persons that contain the term when they are in %s", async (_, held) => {
  await using fresh = await serve({}, { maxInMemory: held });
  await using twin = await serve({ DATABASE_URL: fresh.databaseUrl }, { maxInMemory: held });
  const persons = fc
    .sample(person, 120)
    .filter(({ apelido }, i, all) => all.findIndex((p) => p.apelido === apelido) === i);
  for (const part of [persons.slice(0, 60), persons.slice(60)]) {
    const created = await Promise.all(part.map(async (sent) => (await fresh.post(sent)).status));
    expect(new Set(created)).toEqual(new Set([201]));
    await fresh.search("a"); // loads the persons in memory
  }
  await fc.assert(
    fc.asyncProperty(termsOf(persons), async (wanted) => {
      expectFound(await (wanted.length % 2 ? fresh : twin).search(wanted), wanted, persons);
    }),
    { numRuns: 600 },
  );
});
