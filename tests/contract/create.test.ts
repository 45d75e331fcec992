import { afterAll, describe, expect, test } from "bun:test";
import { problem } from "../helpers/problem.ts";
import { type Found, newPessoa, padded, raw } from "../helpers/requests.ts";
import { query, serve, twins } from "../helpers/support.ts";

const { one: registry, other, stop } = await twins();
const { create } = registry;
afterAll(stop);

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

describe("POST /pessoas answers 201", () => {
  test("with the person, and its location", async () => {
    const pessoa = newPessoa();
    const response = await registry.post(pessoa);
    expect(response.status).toBe(201);
    expect(response.headers.get("content-type")).toBe("application/json");
    const text = await response.text();
    const { id } = JSON.parse(text) as Found;
    expect(id).toMatch(uuid);
    expect(response.headers.get("location")).toBe(`/pessoas/${id}`);
    const { apelido, nome, nascimento, stack } = pessoa;
    expect(text).toBe(JSON.stringify({ id, apelido, nome, nascimento, stack }));
  });

  test.each<[string, object, object?]>([
    ["stack is missing", { stack: undefined }, { stack: null }],
    ["stack is null", { stack: null }],
    ["stack is empty", { stack: [] }],
    ["stack has repeats and an order", { stack: ["b", "a", "b"] }],
    ["stack has a hundred elements", { stack: Array.from({ length: 100 }, (_, i) => `s${i}`) }],
    ["a stack element has 32 characters", { stack: ["x".repeat(32)] }],
    ["a stack element has 32 emoji", { stack: ["🦜".repeat(32)] }],
    ["nome has 1 character", { nome: "a" }],
    ["nome has 100 characters", { nome: "a".repeat(100) }],
    ["nome has 100 characters beyond ASCII", { nome: "é".repeat(100) }],
    ["nome has 100 characters beyond 16 bits", { nome: "😀".repeat(100) }],
    ["nome is blank", { nome: " " }],
    [
      "texts hold quotes, backslashes and braces",
      { nome: `"'\\{},%_\n\t`, stack: [`"`, "\\", "{}", "null", ","] },
    ],
    ["texts hold control characters", { nome: "\u0001\u0002\u0003\u001f\u007f" }],
    ["texts hold noncharacters and a private one", { nome: "\uffff\ufffe\ue000" }],
    ["nome is not normalised", { nome: "e\u0301 é" }],
    ["nascimento is the first day", { nascimento: "0001-01-01" }],
    ["nascimento is the last day", { nascimento: "9999-12-31" }],
    ["nascimento is a leap day", { nascimento: "2000-02-29" }],
    ["it has unknown members", { extra: { deep: [1] }, email: 5 }, { extra: undefined, email: undefined }],
    [
      "the client sends an id",
      { id: "5ce4668c-4710-4cfb-ae5f-38988d6d49cb" },
      { id: expect.stringMatching(uuid) },
    ],
    ["a member is named __proto__", JSON.parse('{"__proto__": {"nome": 1}}') as object, {}],
  ])("when %s", async (_, change, answered = change) => {
    const sent = { ...newPessoa(), ...change };
    const { apelido, nome, nascimento, stack } = sent;
    const response = await registry.post(sent);
    expect(response.status).toBe(201);
    const person = (await response.json()) as Found;
    const { extra, email, ...expected } = { apelido, nome, nascimento, stack, ...answered } as Record<
      string,
      unknown
    >;
    expect(person).toEqual({ ...expected, id: expect.stringMatching(uuid) } as unknown as Found);
    expect(Object.keys(person)).toEqual(["id", "apelido", "nome", "nascimento", "stack"]);
    // The other instance has it from the database, not from its cache.
    expect(await (await other.get(`/pessoas/${person.id}`)).json()).toEqual(person);
  });

  test("when stacks of different words fill 64 KiB each, and small persons sent meanwhile are stored and found, too", async () => {
    const words = (n: number) => Array.from({ length: n }, () => crypto.randomUUID().slice(0, 32));
    const people = Array.from({ length: 20 }, (_, i) => ({ ...newPessoa(), stack: words(i % 2 ? 2 : 1800) }));
    const answers = await Promise.all(people.map((person) => registry.post(person)));
    expect(answers.map(({ status }) => status)).toEqual(people.map(() => 201));
    for (const [i, answer] of answers.entries()) {
      const person = (await answer.json()) as Found;
      const { stack } = people[i] as { stack: string[] };
      expect(person.stack).toEqual(stack);
      for (const term of [person.apelido, stack[0], stack.at(-1)] as string[]) {
        expect(await other.search(term.toUpperCase())).toEqual([person]);
      }
      const [before, after] = stack.slice(31, 33);
      expect(await other.search(`${before?.slice(-5)}${after?.slice(0, 5)}`)).toEqual([]);
    }
  });

  test("once when a person with a long stack is sent three times, and a term in many elements finds the person once", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = {
      ...newPessoa(),
      nome: mark,
      stack: Array.from({ length: 200 }, (_, i) => `${mark} ${i}`),
    };
    const statuses = (await Promise.all([registry, other, registry].map((each) => each.post(person)))).map(
      ({ status }) => status,
    );
    expect(statuses.sort()).toEqual([201, 422, 422]);
    expect(await registry.search(mark)).toHaveLength(1);
    expect(await registry.search(`${mark} 1`)).toHaveLength(1);
    expect(await registry.search(`${mark} 199`)).toHaveLength(1);
  });

  test.each([
    ["apelido has 32 characters", () => crypto.randomUUID().slice(0, 32)],
    [
      "apelido has 32 emoji",
      () =>
        [...crypto.randomUUID().slice(0, 32)]
          .map((c) => String.fromCodePoint(0x1f400 + (c.codePointAt(0) ?? 0)))
          .join(""),
    ],
    ["apelido differs in case alone", () => `Case-${crypto.randomUUID().slice(0, 8)}`],
    ["apelido has a space at the end", () => `${crypto.randomUUID().slice(0, 8)} `],
  ])("when %s", async (_, apelido) => {
    const name = apelido();
    await create({ apelido: name });
    if (name.startsWith("Case-")) await create({ apelido: name.toLowerCase() });
    if (name.endsWith(" ")) await create({ apelido: name.trim() });
  });

  test.each([
    ["application/json"],
    ["application/json; charset=utf-8"],
    ["APPLICATION/JSON"],
    ["application/vnd.pessoa+json"],
  ])("when Content-Type is %s", async (type) => {
    expect((await registry.post(newPessoa(), { "Content-Type": type })).status).toBe(201);
  });

  test.each([
    ["a number that is too large for a double", '"extra":1e99999'],
    ["a number of 60,000 digits", `"extra":${"9".repeat(60_000)}`],
    ["a thousand nested arrays", `"extra":${"[".repeat(1000)}${"]".repeat(1000)}`],
    ["6,000 members", Array.from({ length: 6000 }, (_, i) => `"${i}":0`).join()],
    ["__proto__ and constructor", '"__proto__":{"apelido":1},"constructor":{"prototype":{"nome":1}}'],
    ["nome twice: the last one counts", '"nome":"Ana"'],
  ])("when the JSON holds %s", async (what, member) => {
    const response = await registry.post(JSON.stringify(newPessoa()).replace(/\}$/, `,${member}}`));
    expect(response.status).toBe(201);
    const { nome } = (await response.json()) as Found;
    expect(nome === "Ana").toBe(what.startsWith("nome"));
  });

  test("when there is no Content-Type, and when the body is chunked", async () => {
    const body = JSON.stringify(newPessoa());
    const plain = `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    expect(await raw(registry.url, plain, /\}$/)).toStartWith("HTTP/1.1 201 ");
    const [head, tail] = [JSON.stringify(newPessoa()).slice(0, 9), ""];
    const rest = JSON.stringify(newPessoa()).slice(head.length) + tail;
    const chunked = [head, rest].map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join("");
    const request = `POST /pessoas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunked}0\r\n\r\n`;
    expect(await raw(registry.url, request, /\}$/)).toStartWith("HTTP/1.1 201 ");
  });
});

describe("POST /pessoas answers 400 for wrong JSON", () => {
  test.each<[string, string | Uint8Array]>([
    ["empty", ""],
    ["not JSON", "apelido=ana"],
    ["cut off", '{"apelido": "a"'],
    ["followed by more", "{} {}"],
    ["an array", "[]"],
    ["null", "null"],
    ["a string", '"ana"'],
    ["a number", "1"],
    ["not UTF-8", new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])],
    [
      "UTF-8 with an encoded surrogate",
      new Uint8Array([0x7b, 0x22, 0xed, 0xa0, 0x80, 0x22, 0x3a, 0x31, 0x7d]),
    ],
    ["UTF-16", Buffer.from("{}", "utf16le")],
    ["JSON with a byte order mark", "\ufeff{}"],
    ["a thousand brackets deep", "[".repeat(1000)],
    ["deep and well-formed", `${"[".repeat(30_000)}${"]".repeat(30_000)}`],
    ["a number of 60,000 digits", "9".repeat(60_000)],
  ])("when the body is %s", async (_, body) => {
    await problem(await registry.post(body), 400);
  });

  test.each<[string, object, string[]]>([
    ["apelido is a number", { apelido: 1 }, ["apelido"]],
    ["nome is a number", { nome: 1 }, ["nome"]],
    ["nome is an array", { nome: ["a"] }, ["nome"]],
    ["nascimento is a boolean", { nascimento: true }, ["nascimento"]],
    ["nascimento is an object", { nascimento: {} }, ["nascimento"]],
    ["stack is a string", { stack: "Bun" }, ["stack"]],
    ["stack is an object", { stack: {} }, ["stack"]],
    ["stack is a number", { stack: 0 }, ["stack"]],
    ["stack is false", { stack: false }, ["stack"]],
    ["a stack element is a number", { stack: ["a", 1] }, ["stack[1]"]],
    ["a stack element is null", { stack: [null] }, ["stack[0]"]],
    ["a stack element is an array", { stack: [["a"]] }, ["stack[0]"]],
    [
      "there are several problems, some of them 422",
      { nome: 1, apelido: "", stack: [""] },
      ["apelido", "nome", "stack[0]"],
    ],
    ["a wrong type stands beside a missing member", { nome: undefined, stack: [1] }, ["nome", "stack[0]"]],
  ])("when %s", async (_, change, fields) => {
    const { errors } = await problem(await registry.post({ ...newPessoa(), ...change }), 400);
    expect(errors?.map(({ field }) => field)).toEqual(fields);
  });

  test("with a bounded answer when thousands of elements are wrong", async () => {
    const { errors, detail } = await problem(
      await registry.post({ ...newPessoa(), stack: new Array(30_000).fill(1) }),
      400,
    );
    expect(errors).toHaveLength(100);
    expect(detail).toEndWith("; and 29900 more");
  });
});

describe("POST /pessoas answers 422 for an impossible value", () => {
  const days = ["", "1990", "1990-1-1", "1990-01-32", "1990-13-01", "1990-00-10", "1990-01-00", "2023-02-29"];
  const moreDays = ["2023-02-30", "1900-02-29", "0000-01-01", "10000-01-01", "-001-01-01", "01/02/1990"];
  const evenMoreDays = ["1990-01-01T00:00:00Z", " 1990-01-01", "1990-01-01\n", "١٩٩٠-٠١-٠١", "1990-01-01\0"];

  test.each<[string, object, string[]]>([
    ["apelido is missing", { apelido: undefined }, ["apelido"]],
    ["apelido is null", { apelido: null }, ["apelido"]],
    ["apelido is empty", { apelido: "" }, ["apelido"]],
    ["apelido has 33 characters", { apelido: "a".repeat(33) }, ["apelido"]],
    ["apelido has 33 emoji", { apelido: "🦜".repeat(33) }, ["apelido"]],
    ["nome is missing", { nome: undefined }, ["nome"]],
    ["nome is null", { nome: null }, ["nome"]],
    ["nome is empty", { nome: "" }, ["nome"]],
    ["nome has 101 characters", { nome: "a".repeat(101) }, ["nome"]],
    ["nascimento is missing", { nascimento: undefined }, ["nascimento"]],
    ["nascimento is null", { nascimento: null }, ["nascimento"]],
    ["a stack element is empty", { stack: ["a", ""] }, ["stack[1]"]],
    ["a stack element has 33 characters", { stack: ["a".repeat(33)] }, ["stack[0]"]],
    ["apelido holds U+0000", { apelido: "a\0b" }, ["apelido"]],
    ["nome holds U+0000", { nome: "\0" }, ["nome"]],
    ["a stack element holds U+0000", { stack: ["\0"] }, ["stack[0]"]],
    ["nome holds a high surrogate alone", { nome: "a\ud83d" }, ["nome"]],
    ["apelido holds a low surrogate alone", { apelido: "\ude00a" }, ["apelido"]],
    ["a stack element holds surrogates in the wrong order", { stack: ["\ude00\ud83d"] }, ["stack[0]"]],
    [
      "every member is wrong",
      { apelido: "", nome: "", nascimento: "x", stack: [""] },
      ["apelido", "nome", "nascimento", "stack[0]"],
    ],
    ...[...days, ...moreDays, ...evenMoreDays].map((nascimento): [string, object, string[]] => [
      `nascimento is ${JSON.stringify(nascimento)}`,
      { nascimento },
      ["nascimento"],
    ]),
  ])("when %s", async (_, change, fields) => {
    const { errors } = await problem(await registry.post({ ...newPessoa(), ...change }), 422);
    expect(errors?.map(({ field }) => field)).toEqual(fields);
    expect(errors?.every(({ message }) => message.length > 0)).toBe(true);
  });

  test("when the body is an empty object", async () => {
    const { errors } = await problem(await registry.post({}), 422);
    expect(errors?.map(({ field }) => field)).toEqual(["apelido", "nome", "nascimento"]);
  });

  test("when the apelido is taken, on this instance or another, even if the other members differ", async () => {
    const { apelido } = await create();
    for (const instance of [registry, other]) {
      const response = await instance.post({ ...newPessoa(), apelido });
      const { errors, location } = await problem(response, 422);
      expect(errors).toEqual([{ field: "apelido", message: "is already taken" }]);
      const found = (await (await instance.get(location as string)).json()) as Found;
      expect(found.apelido).toBe(apelido);
    }
  });

  test("with the location of the person that has the apelido, and for any other reason without a location", async () => {
    const sent = newPessoa();
    const stored = await create(sent);
    for (const instance of [registry, other]) {
      const { location } = await problem(await instance.post(sent), 422);
      expect(location).toBe(`/pessoas/${stored.id}`);
    }
    expect(await problem(await registry.post({ ...sent, nome: "" }), 422)).not.toHaveProperty("location");
  });

  test("when the database rejects the row, while the other rows of its batch are stored", async () => {
    await using strict = await serve();
    await query(strict.databaseUrl, "alter table pessoas add check (nome <> 'poison')");
    const persons = Array.from({ length: 40 }, (_, i) => ({
      ...newPessoa(),
      nome: i % 13 === 5 ? "poison" : "ok",
      ...(i % 2 ? { stack: new Array(50).fill("long") } : {}),
    }));
    const answers = await Promise.all(persons.map((person) => strict.post(person)));
    expect(answers.map(({ status }) => status)).toEqual(
      persons.map(({ nome }) => (nome === "ok" ? 201 : 422)),
    );
    expect(await strict.count()).toBe(37);
  });
});

describe("POST /pessoas answers 413 and 415", () => {
  test("201 for a body of exactly 64 KiB, 413 for one byte more", async () => {
    expect((await registry.post(padded(64 * 1024))).status).toBe(201);
    await problem(await registry.post(padded(64 * 1024 + 1)), 413);
  });

  test.each([100_000, 5_000_000])("413 for %d bytes, whatever the Content-Type is", async (bytes) => {
    await problem(await registry.post(padded(bytes), { "Content-Type": "text/plain" }), 413);
  });

  test("413 for a chunked body as soon as it is too large, and the connection is closed", async () => {
    const chunk = `8000\r\n${"x".repeat(0x8000)}\r\n`;
    const endless = `POST /pessoas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(3)}`;
    expect(await raw(registry.url, endless)).toStartWith("HTTP/1.1 413 "); // resolves when the server closes
  });

  test("413 for an announced length before the body comes, and the connection is closed", async () => {
    const announced = "POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    expect(await raw(registry.url, announced)).toStartWith("HTTP/1.1 413 ");
  });

  test.each([
    "text/plain",
    "application/x-www-form-urlencoded",
    "application/jsonp",
    "json",
    "multipart/form-data",
  ])("415 when Content-Type is %s, even if the body is not JSON", async (type) => {
    await problem(await registry.post(newPessoa(), { "Content-Type": type }), 415);
    await problem(await registry.post("{", { "Content-Type": type }), 415);
  });

  test.each(["gzip", "x-gzip", "GZIP", "gzip, identity", "identity, br", "identityx"])(
    "415 with Accept-Encoding when Content-Encoding is %s, for every body that is not too large",
    async (coding) => {
      const headers = { "Content-Type": "application/json", "Content-Encoding": coding };
      for (const body of [JSON.stringify(newPessoa()), Bun.gzipSync(JSON.stringify(newPessoa())), "{"]) {
        const response = await registry.post(body, headers);
        expect(response.headers.get("accept-encoding")).toBe("identity");
        expect((await problem(response, 415)).detail).toContain(coding);
      }
      await problem(await registry.post(padded(64 * 1024 + 1), headers), 413);
    },
  );

  test("415 for a Content-Type has no Accept-Encoding", async () => {
    const response = await registry.post(newPessoa(), { "Content-Type": "text/plain" });
    expect(response.headers.has("accept-encoding")).toBe(false);
    await problem(response, 415);
  });

  test.each(["identity", "Identity", "", " identity ", "identity, identity"])(
    "201 when Content-Encoding is %j",
    async (coding) => {
      const headers = { "Content-Type": "application/json", "Content-Encoding": coding };
      expect((await registry.post(newPessoa(), headers)).status).toBe(201);
    },
  );

  test("nothing is stored when a client disconnects in the middle of a body", async () => {
    const before = await registry.count();
    const body = JSON.stringify(newPessoa());
    const half = `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length + 1}\r\n\r\n${body}`;
    // The first answer proves that the server has read the bytes.
    await raw(registry.url, `GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n${half}`, /ok/);
    expect(await registry.count()).toBe(before);
  });
});

describe("creates at the same time on two instances", () => {
  test("of a hundred requests with one apelido exactly one gets 201", async () => {
    for (let round = 0; round < 5; round++) {
      const { apelido } = newPessoa();
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) => (i % 2 ? registry : other).post({ ...newPessoa(), apelido })),
      );
      const statuses = answers.map(({ status }) => status).sort();
      expect(statuses).toEqual([201, ...new Array(99).fill(422)]);
      const winner = (await answers.find(({ status }) => status === 201)?.json()) as Found;
      expect(await other.search(apelido)).toEqual([winner]);
    }
  });

  test("overlapping batches store each person once", async () => {
    const before = await registry.count();
    const persons = Array.from({ length: 300 }, newPessoa);
    const send = async (instance: typeof registry, order: typeof persons) =>
      (await Promise.all(order.map((person) => instance.post(person)))).map(({ status }) => status);
    const statuses = (await Promise.all([send(registry, persons), send(other, persons.toReversed())])).flat();
    expect(statuses.filter((status) => status === 201)).toHaveLength(300);
    expect(statuses.filter((status) => status === 422)).toHaveLength(300);
    expect(await other.count()).toBe(before + 300);
  });
});
