import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { once } from "node:events";
import net from "node:net";
import { join } from "node:path";
import { client, type Found, newPessoa, type Problem, raw } from "../helpers/requests.ts";
import { shapes } from "../helpers/shapes.ts";
import { connect, query, type Registry, serve, temporaryFolder } from "../helpers/support.ts";

let registry: Registry;
let other: Registry; // another instance on the same database
beforeAll(async () => {
  registry = await serve();
  other = await serve({ DATABASE_URL: registry.databaseUrl });
});
afterAll(async () => {
  await registry.stop();
  await other.stop();
});

const uuid = /^[0-9a-f]{8}-[0-9a-f]{4}-5[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/;

/** Checks that it is an RFC 9457 answer with this status, and returns its body. */
async function problem(response: Response, status: number): Promise<Problem> {
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  const body = (await response.json()) as Problem;
  expect(body.type).toBe("about:blank");
  expect([body.title, body.detail].map((text) => typeof text)).toEqual(["string", "string"]);
  expect([response.status, body.status]).toEqual([status, status]);
  return body;
}

async function create(change: object = {}): Promise<Found> {
  const response = await registry.post({ ...newPessoa(), ...change });
  expect(response.status).toBe(201);
  return (await response.json()) as Found;
}

describe("POST /pessoas: 201", () => {
  test("answers with the person and where it is", async () => {
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
    ["members are unknown", { extra: { deep: [1] }, email: 5 }, { extra: undefined, email: undefined }],
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

  test("when a stack of different words fills 64 KiB, and so do others, without harm to anybody beside them", async () => {
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

  test("when a stack is long, once, and found once whoever holds the term in many elements", async () => {
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
    ["a number beyond all numbers", '"extra":1e99999'],
    ["a number of 60,000 digits", `"extra":${"9".repeat(60_000)}`],
    ["a thousand arrays in each other", `"extra":${"[".repeat(1000)}${"]".repeat(1000)}`],
    ["6,000 members", Array.from({ length: 6000 }, (_, i) => `"${i}":0`).join()],
    ["__proto__ and constructor", '"__proto__":{"apelido":1},"constructor":{"prototype":{"nome":1}}'],
    ["nome twice, of which the last counts", '"nome":"Ana"'],
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

describe("POST /pessoas: 400 for what is not the right JSON", () => {
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

describe("POST /pessoas: 422 for a value that is not possible", () => {
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
      "everything is wrong at once",
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

  test("when the apelido is taken, on this instance or another, whatever else is sent", async () => {
    const { apelido } = await create();
    for (const instance of [registry, other]) {
      const response = await instance.post({ ...newPessoa(), apelido });
      const { errors, location } = await problem(response, 422);
      expect(errors).toEqual([{ field: "apelido", message: "is already taken" }]);
      const found = (await (await instance.get(location as string)).json()) as Found;
      expect(found.apelido).toBe(apelido);
    }
  });

  test("with the location of the person who has the apelido, and of nobody for another reason", async () => {
    const sent = newPessoa();
    const stored = await create(sent);
    for (const instance of [registry, other]) {
      const { location } = await problem(await instance.post(sent), 422);
      expect(location).toBe(`/pessoas/${stored.id}`);
    }
    expect(await problem(await registry.post({ ...sent, nome: "" }), 422)).not.toHaveProperty("location");
  });

  test("when the database cannot hold the row, without harm to those in the same batch", async () => {
    const strict = await serve();
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
    await strict.stop();
  });
});

describe("POST /pessoas: 413 and 415", () => {
  const padded = (bytes: number) => {
    const body = JSON.stringify({ ...newPessoa(), padding: "" });
    return body.replace('"padding":""', `"padding":"${"x".repeat(bytes - body.length)}"`);
  };

  test("201 for a body of exactly 64 KiB, 413 for one byte more", async () => {
    expect((await registry.post(padded(64 * 1024))).status).toBe(201);
    await problem(await registry.post(padded(64 * 1024 + 1)), 413);
  });

  test.each([100_000, 5_000_000])("413 for %d bytes, before the Content-Type is looked at", async (bytes) => {
    await problem(await registry.post(padded(bytes), { "Content-Type": "text/plain" }), 413);
  });

  test("413 for a chunked body as soon as it is too large, and the end", async () => {
    const chunk = `8000\r\n${"x".repeat(0x8000)}\r\n`;
    const endless = `POST /pessoas HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(3)}`;
    expect(await raw(registry.url, endless)).toStartWith("HTTP/1.1 413 "); // resolves when the server closes
  });

  test("413 for an announced length, without waiting for the body, and the end", async () => {
    const announced = "POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n";
    expect(await raw(registry.url, announced)).toStartWith("HTTP/1.1 413 ");
  });

  test("of large bodies 1024 may be on their way: one more gets 503, and small ones are taken", async () => {
    const { hostname, port } = new URL(registry.url);
    const head = "POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
    const sockets = Array.from({ length: 1025 }, () =>
      net.connect(Number(port), hostname, function (this: net.Socket) {
        this.write(head);
      }),
    );
    const [refusal] = await Promise.race(sockets.map((socket) => once(socket, "data")));
    expect(String(refusal)).toStartWith("HTTP/1.1 503 ");
    expect(String(refusal)).toContain("Retry-After: 1\r\n");
    await problem(await registry.post(padded(10_000)), 503);
    expect((await registry.post(newPessoa())).status).toBe(201);
    for (const socket of sockets) socket.destroy();
    for (let status = 0; status !== 201; ) {
      ({ status } = await registry.post(padded(10_000)));
      expect([201, 503]).toContain(status);
    }
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

  test.each([
    ["gzip", "gzip"],
    ["x-gzip", "x-gzip"],
    ["GZIP", "GZIP"],
    ["gzip, identity", "gzip, identity"],
    ["identity, br", "identity, br"],
    ["identityx", "identityx"],
  ])(
    "415 that says what is accepted when Content-Encoding is %s, whatever the body is",
    async (coding, named) => {
      const headers = { "Content-Type": "application/json", "Content-Encoding": coding };
      for (const body of [JSON.stringify(newPessoa()), Bun.gzipSync(JSON.stringify(newPessoa())), "{"]) {
        const response = await registry.post(body, headers);
        expect(response.headers.get("accept-encoding")).toBe("identity");
        expect((await problem(response, 415)).detail).toContain(named);
      }
      await problem(await registry.post(padded(64 * 1024 + 1), headers), 413);
    },
  );

  test("415 for a Content-Type says nothing of codings", async () => {
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

  test("nothing breaks and nothing is stored when a client goes away in the middle of a body", async () => {
    const before = await registry.count();
    const body = JSON.stringify(newPessoa());
    const half = `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length + 1}\r\n\r\n${body}`;
    // The first answer proves that the server has read so far.
    await raw(registry.url, `GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n${half}`, /ok/);
    expect(await registry.count()).toBe(before);
  });
});

describe("GET /pessoas/:id", () => {
  test("200 with the person, to be cached for ever, from every instance", async () => {
    const person = await create();
    for (const instance of [registry, other, other]) {
      const response = await instance.get(`/pessoas/${person.id}`);
      expect(response.status).toBe(200);
      expect(response.headers.get("content-type")).toBe("application/json");
      expect(response.headers.get("cache-control")).toContain("immutable");
      expect(await response.json()).toEqual(person);
    }
  });

  test("200 whatever the case of the id", async () => {
    const { id } = await create();
    const response = await other.get(`/pessoas/${id.toUpperCase()}`);
    expect(((await response.json()) as Found).id).toBe(id);
  });

  test.each([
    "5ce4668c-4710-4cfb-ae5f-38988d6d49cb",
    "00000000-0000-0000-0000-000000000000",
    "not-a-uuid",
    "1",
    "5ce4668c47104cfbae5f38988d6d49cb",
    "{5ce4668c-4710-4cfb-ae5f-38988d6d49cb}",
    "5ce4668c-4710-4cfb-ae5f-38988d6d49cg",
    "%00",
    "%FF",
    "%zz",
    "'; drop table pessoas; --",
  ])("404 for %s", async (id) => {
    await problem(await registry.get(`/pessoas/${id}`), 404);
  });

  test("a person who did not exist when first asked for is found once created", async () => {
    const { apelido, ...rest } = newPessoa();
    const elsewhere = await serve(); // the id follows from the apelido: create it elsewhere to know it
    const { id } = (await (await elsewhere.post({ apelido, ...rest })).json()) as Found;
    await elsewhere.stop();
    await problem(await other.get(`/pessoas/${id}`), 404);
    await create({ apelido });
    expect((await other.get(`/pessoas/${id}`)).status).toBe(200);
  });
});

describe("GET /pessoas?t=", () => {
  test("finds by apelido, nome and each element of stack, ignoring case, at once and on every instance", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({
      apelido: `Ap${mark}ido`,
      nome: `Zé ÇEDILHA ${mark}`,
      stack: ["C#", `Node ${mark}.JS`],
    });
    for (const term of [
      `AP${mark}IDO`,
      `zé çedilha ${mark}`,
      `ZÉ ÇEDILHA ${mark}`,
      `node ${mark}.js`,
      mark,
    ]) {
      for (const instance of [registry, other]) expect(await instance.search(term)).toEqual([person]);
    }
  });

  test("an empty array when nobody holds it", async () => {
    const response = await registry.get("/pessoas?t=nobody-has-this-nickname");
    expect([response.status, await response.text()]).toEqual([200, "[]"]);
    expect(response.headers.get("content-type")).toBe("application/json");
  });

  test("stack comes back as it was sent, null included", async () => {
    const mark = crypto.randomUUID();
    const person = await create({ nome: mark, stack: null });
    expect(await registry.search(mark)).toEqual([person]);
  });

  test.each([
    "%",
    "_",
    "\\",
    "%%",
    "\\%",
    "100%_\\x",
    "'",
    '"',
    ".*",
    "[",
    "+",
    "&t=",
    "\u0001",
    "\u0002\u0003",
  ])("%j is literal", async (special) => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `${mark}${special}` });
    await create({ nome: `${mark}x${mark}` });
    expect(await other.search(`${mark}${special}`)).toEqual([person]);
  });

  test("never matches across fields or elements, whatever they hold", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    await create({ apelido: `a${mark}`, nome: `b${mark}`, stack: [`c${mark}`, `d${mark}`] });
    const joints = [
      "",
      " ",
      ",",
      "\n",
      "\t",
      "|",
      "\u0001",
      "\u0002",
      "\u0002\u0003\u0004",
      "\u001f",
      "\0",
      "%",
    ];
    for (const joint of joints) {
      for (const term of [`${mark}${joint}b`, `${mark}${joint}c`, `${mark}${joint}d`]) {
        expect(await registry.search(term)).toEqual([]);
      }
    }
  });

  test.each([
    ["ss", "straße", false],
    ["STRASSE", "strasse", true],
    ["İstanbul", "i̇stanbul", true],
    ["ΟΔΟΣ", "οδος", true],
    ["K", "K", true], // the Kelvin sign
  ])("term %j against nome %j: %p, as String.prototype.toLowerCase has it", async (term, nome, found) => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `${mark}${nome}` });
    expect(await registry.search(`${mark}${term}`.slice(0, 200))).toEqual(found ? [person] : []);
  });

  test("one and two characters are terms, too", async () => {
    const nome = "\u{13000}\u{13001}";
    const person = await create({ nome });
    expect(await registry.search("\u{13000}")).toEqual([person]);
    expect(await registry.search(nome)).toEqual([person]);
  });

  test("at most 50 of those who hold it", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    await Promise.all(Array.from({ length: 55 }, () => create({ nome: mark })));
    const found = await registry.search(mark);
    expect(found).toHaveLength(50);
    expect(new Set(found.map(({ id }) => id)).size).toBe(50);
    expect(found.every(({ nome }) => nome === mark)).toBe(true);
  });

  test("both + and %20 are a space; other parameters are ignored", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `x ${mark} y` });
    for (const query of [`t=x+${mark}`, `t=x%20${mark}`, `a=%zz&t=${mark}+y&b&T=9`, `%74=${mark}`]) {
      expect(await (await registry.get(`/pessoas?${query}`)).json()).toEqual([person]);
    }
  });

  test("a term with an equals sign", async () => {
    const mark = crypto.randomUUID().slice(0, 8);
    const person = await create({ nome: `${mark}=1` });
    expect(await (await registry.get(`/pessoas?t=${mark}=1`)).json()).toEqual([person]);
  });

  test.each([
    "",
    "?",
    "?t",
    "?t=",
    "?t=&t=",
    "?t=a&t=b",
    "?t=a&%74=b",
    "?T=a",
    "?x=t",
    "?t=%",
    "?t=%zz",
    "?t=%FF",
    "?t=%C3",
    "?t=%ED%A0%80",
  ])("400 for /pessoas%s", async (queryString) => {
    const { errors } = await problem(await registry.get(`/pessoas${queryString}`), 400);
    expect(errors?.[0]?.field).toBe("t");
  });

  test.each([
    ["4 KB of one letter", "a".repeat(4096)],
    ["nothing but wildcards", "%".repeat(300)],
    ["U+0000", "a\0"],
  ])("an empty array for %s", async (_, term) => {
    expect(await registry.search(term)).toEqual([]);
  });
});

describe("answers that nobody reads", () => {
  test("hold a bounded amount of memory: one more is 503, small ones go on, and all is well once they are gone", async () => {
    await using folder = await temporaryFolder();
    const unix = join(folder.path, "api.sock");
    const full = await serve({ SOCKET: unix });
    const { search, get, count } = client("http://x", { unix });
    await query(
      full.databaseUrl,
      `insert into pessoas (id, apelido, nome, nascimento, stack, busca)
       select gen_random_uuid(), n, '-', '2000-01-01', json_build_array(repeat('x', 60000)), 'large'
       from generate_series(1, 50) n;
       insert into short_terms values ('', gen_random_uuid())`, // there are persons in the index
    );
    const sockets: net.Socket[] = [];
    const statuses = await Promise.all(
      Array.from({ length: 16 }, async () => {
        const socket = net.connect(unix, () =>
          socket.write("GET /pessoas?t=large HTTP/1.1\r\nHost: x\r\n\r\n"),
        );
        sockets.push(socket);
        const [begin] = (await once(socket, "data")) as [Buffer];
        socket.pause();
        return begin.toString("latin1").slice(9, 12);
      }),
    );
    expect(statuses.filter((status) => status === "200").length).toBeGreaterThan(5);
    expect(statuses.filter((status) => status === "503").length).toBeGreaterThan(2);
    expect(await search("nobody")).toEqual([]);
    expect(await count()).toBe(50);
    for (const socket of sockets) socket.destroy();
    let answer: Response;
    do answer = await get("/pessoas?t=large");
    while (answer.status === 503);
    expect((await answer.json()) as Found[]).toHaveLength(50);
    await full.stop();
  });
});

describe("GET /contagem-pessoas", () => {
  test("exact, as digits, never cached, on every instance", async () => {
    const fresh = await serve();
    const twin = await serve({ DATABASE_URL: fresh.databaseUrl });
    expect(await fresh.count()).toBe(0);
    for (let n = 1; n <= 3; n++) {
      await fresh.post(newPessoa());
      await fresh.post({ ...newPessoa(), nome: 1 });
      for (const instance of [fresh, twin]) {
        const response = await instance.get("/contagem-pessoas");
        expect(response.headers.get("content-type")).toStartWith("text/plain");
        expect(response.headers.get("cache-control")).toBe("no-store");
        expect(await response.text()).toBe(String(n));
      }
    }
    await fresh.stop();
    await twin.stop();
  });
});

describe("everything else", () => {
  test.each([
    "/pessoa",
    "/docs//",
    "/docs/../server.ts",
    "/docs/swagger-ui-es-bundle.js",
    "/pessoas//",
    "/pessoas/a/b",
    "/pessoas/a/b/",
    "/pessoas/5ce4668c-4710-4cfb-ae5f-38988d6d49cb//",
    "/contagem-pessoas//",
    "/metrics/x",
    "/Pessoas?t=a",
  ])("404 for %s", async (path) => {
    await problem(await registry.get(path), 404);
    await problem(await registry.request(path, { method: "DELETE" }), 404);
  });

  test.each([
    ["PUT", "/pessoas", "GET, HEAD, POST"],
    ["DELETE", "/pessoas", "GET, HEAD, POST"],
    ["PATCH", "/pessoas", "GET, HEAD, POST"],
    ["OPTIONS", "/pessoas", "GET, HEAD, POST"],
    ["POST", "/pessoas/5ce4668c-4710-4cfb-ae5f-38988d6d49cb", "GET, HEAD"],
    ["DELETE", "/pessoas/not-a-uuid", "GET, HEAD"],
    ["POST", "/contagem-pessoas", "GET, HEAD"],
    ["POST", "/healthz", "GET, HEAD"],
    ["PUT", "/readyz", "GET, HEAD"],
  ])("405 for %s %s", async (method, path, allow) => {
    const response = await registry.request(path, { method });
    expect(response.headers.get("allow")).toBe(allow);
    await problem(response, 405);
  });

  test.each(["//", "///", "//pessoas?t=a", "//healthz/"])("404 for the target %s", async (target) => {
    const answer = await raw(registry.url, `GET ${target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`);
    expect(answer).toStartWith("HTTP/1.1 404 ");
  });

  test("one slash at the end of a path is ignored, and the metrics' routes are the same", async () => {
    const fresh = await serve();
    const created = await fresh.request("/pessoas/", { method: "POST", body: JSON.stringify(newPessoa()) });
    expect(created.status).toBe(201);
    const { id } = (await created.json()) as Found;
    for (const path of [
      ...[`/pessoas/${id}`, "/pessoas?t=Pessoa", "/contagem-pessoas", "/healthz", "/readyz", "/metrics"],
      ...["/docs", "/docs/start.js", "/openapi.json"],
    ]) {
      const [name = "", query] = path.split("?");
      expect([path, (await fresh.get(`${name}/${query ? `?${query}` : ""}`)).status]).toEqual([path, 200]);
    }
    await problem(await fresh.get("/pessoas/"), 400);
    await problem(await fresh.request("/contagem-pessoas/", { method: "POST" }), 405);
    const text = await (await fresh.get("/metrics")).text();
    const routes = [...text.matchAll(/duration_seconds_count\{route="([^"]+)"/g)].map(([, route]) => route);
    expect(new Set(routes)).toEqual(
      new Set([
        ...["POST /pessoas", "GET /pessoas/:id", "GET /pessoas", "GET /contagem-pessoas", "GET /healthz"],
        ...["GET /readyz", "GET /metrics", "GET /docs", "GET /docs/start.js", "GET /openapi.json"],
        "POST /contagem-pessoas",
      ]),
    );
    await fresh.stop();
  });

  test("HEAD answers as GET does, without a body", async () => {
    const { id } = await create();
    for (const path of [
      `/pessoas/${id}`,
      "/pessoas?t=a",
      "/contagem-pessoas",
      "/pessoas",
      "/pessoas/x",
      "/healthz",
    ]) {
      const [get, head] = [await registry.get(path), await registry.request(path, { method: "HEAD" })];
      expect([head.status, await head.text()]).toEqual([get.status, ""]);
      expect(head.headers.get("content-type")).toBe(get.headers.get("content-type"));
    }
  });

  test("/healthz and /readyz", async () => {
    expect((await registry.get("/healthz")).status).toBe(200);
    expect((await registry.get("/readyz")).status).toBe(200);
  });

  test("/metrics knows of every request, however many there are between two scrapes", async () => {
    const fresh = await serve();
    const asked = 600;
    const scrape = async () => {
      const of = 'pessoas_http_request_duration_seconds_count{route="GET /healthz",status="200"} ';
      const lines = (await (await fresh.get("/metrics")).text()).split("\n");
      return lines.find((line) => line.startsWith(of))?.slice(of.length);
    };
    for (let i = 0; i < asked; i++) await fresh.get("/healthz");
    expect(await scrape()).toBe(String(asked));
    await fresh.get("/healthz");
    expect(await scrape()).toBe(String(asked + 1));
    await fresh.stop();
  });

  test("/metrics tells what was asked, in Prometheus' text format", async () => {
    const fresh = await serve();
    const { id } = (await (await fresh.post(newPessoa())).json()) as Found;
    await fresh.get(`/pessoas/${id}`);
    await fresh.get(`/pessoas/${crypto.randomUUID()}`);
    await fresh.get("/nothing/here");
    const response = await fresh.get("/metrics");
    expect(response.headers.get("content-type")).toStartWith("text/plain");
    const lines = (await response.text()).split("\n");
    for (const line of [
      'pessoas_http_request_duration_seconds_count{route="POST /pessoas",status="201"} 1',
      'pessoas_http_request_duration_seconds_count{route="GET /pessoas/:id",status="200"} 1',
      'pessoas_http_request_duration_seconds_count{route="GET /pessoas/:id",status="404"} 1',
      'pessoas_http_request_duration_seconds_count{route="other",status="404"} 1',
      "pessoas_cache_hits_total 1",
      "pessoas_cache_misses_total 1",
      "pessoas_cache_entries 1",
      'pessoas_batch_statements_total{kind="insert"} 1',
      'pessoas_batch_items_total{kind="find"} 1',
      'pessoas_batch_waiting{kind="insert"} 0',
      'pessoas_batch_connections{kind="search"} 2',
      'pessoas_batch_connections_busy{kind="search"} 0',
    ]) {
      expect(lines).toContain(line);
    }
    for (const name of [
      "process_cpu_seconds_total",
      "process_resident_memory_bytes",
      "nodejs_eventloop_lag_max_seconds",
    ]) {
      expect([name, lines.some((line) => line.startsWith(`${name} `))]).toEqual([name, true]);
    }
    await fresh.stop();
  });

  test("a Host header that is no host does no harm", async () => {
    const answer = await raw(registry.url, "GET /healthz?x HTTP/1.0\r\nHost: a b/c?d\r\n\r\n");
    expect(answer).toStartWith("HTTP/1.1 200 ");
  });

  test("a bug gives 500 without telling anything about it", async () => {
    const broken = await serve();
    await query(broken.databaseUrl, "alter table pessoas rename column nome to lost");
    const { error } = console;
    const logged: unknown[] = [];
    console.error = (...what) => logged.push(...what);
    try {
      const { detail } = await problem(await broken.get(`/pessoas/${crypto.randomUUID()}`), 500);
      expect(detail).not.toContain("nome");
      expect(Bun.inspect(logged[0])).toContain("nome");
    } finally {
      console.error = error;
      await broken.stop();
    }
  });
});

describe("bytes that are no request", () => {
  test.each(shapes)("%s: refused, and that is the end of it", async (_, status, bytes) => {
    const answer = await raw(registry.url, Buffer.from(bytes, "latin1")); // resolves when the server closes
    const statuses = [...answer.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, code]) => code);
    expect(statuses).toEqual([expect.stringMatching(status)]);
  });

  // Bun hangs up on a request that comes before the one ahead of it is answered: cut, and never mixed up.
  test("requests on one connection are answered in their order, or cut", async () => {
    const requests = Array.from({ length: 50 }, (_, i) => {
      const body = JSON.stringify(newPessoa());
      return i % 2
        ? "GET /pessoas/nobody HTTP/1.1\r\nHost: x\r\n\r\n"
        : `POST /pessoas HTTP/1.1\r\nHost: x\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    });
    const last = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    const answer = await raw(registry.url, requests.join("") + last);
    const statuses = [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, code]) => code);
    const inOrder = [...requests.map((_, i) => (i % 2 ? "404" : "201")), "200"];
    expect(statuses).toEqual(inOrder.slice(0, statuses.length));
    expect((await registry.get("/healthz")).status).toBe(200);
  });
});

describe("at the same time", () => {
  test("of a hundred requests with one apelido, on two instances, exactly one gets 201", async () => {
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

  test("overlapping batches of two instances store everybody once", async () => {
    const before = await registry.count();
    const persons = Array.from({ length: 300 }, newPessoa);
    const send = async (instance: Registry, order: typeof persons) =>
      (await Promise.all(order.map((person) => instance.post(person)))).map(({ status }) => status);
    const statuses = (await Promise.all([send(registry, persons), send(other, persons.toReversed())])).flat();
    expect(statuses.filter((status) => status === 201)).toHaveLength(300);
    expect(statuses.filter((status) => status === 422)).toHaveLength(300);
    expect(await other.count()).toBe(before + 300);
  });

  test("503 with Retry-After when more wait than may; the same request sent again succeeds", async () => {
    const tiny = await serve({}, { queueLimit: 2, batchSize: 1 });
    const persons = Array.from({ length: 60 }, newPessoa);
    const answers = await Promise.all(persons.map((person) => tiny.post(person)));
    const refused = persons.filter((_, i) => answers[i]?.status === 503);
    const stored = answers.filter(({ status }) => status === 201).length;
    expect(refused.length).toBeGreaterThan(0);
    expect(stored + refused.length).toBe(60);
    for (const answer of answers.filter(({ status }) => status === 503)) {
      expect(answer.headers.get("retry-after")).toBe("1");
      await problem(answer, 503);
    }
    expect(await tiny.count()).toBe(stored);
    for (const person of refused) expect((await tiny.post(person)).status).toBe(201);
    await tiny.stop();
  });

  test("SEARCHES are at the database at once, the others wait, and all are answered", async () => {
    const three = await serve({ SEARCHES: "3" }, { maxInMemory: 0 }); // each search is a statement of its own
    const metric = async (name: string) => {
      const line = new RegExp(`^pessoas_batch_${name}{kind="search"} (\\d+)$`, "m");
      return Number(line.exec(await (await three.get("/metrics")).text())?.[1]);
    };
    const sql = connect(three.databaseUrl);
    await sql.begin(async (held) => {
      await held`lock table pessoas in access exclusive mode`;
      const searches = Array.from({ length: 5 }, () => three.get("/pessoas?t=nobody"));
      while ((await metric("waiting")) < 2);
      expect(await metric("connections_busy")).toBe(3);
      await held`rollback`;
      for (const { status } of await Promise.all(searches)) expect(status).toBe(200);
    });
    await sql.end();
    await three.stop();
  });

  test("a create waits longer than DB_TIMEOUT_MS while the database answers others, and gets 503 after twice that", async () => {
    const hasty = await serve({ DB_TIMEOUT_MS: "800" });
    const sql = connect(hasty.databaseUrl);
    await sql.begin(async (held) => {
      await held`lock table pessoas in exclusive mode`;
      const created = hasty.post(newPessoa());
      await held`select pg_sleep(1.2)`;
      await held`rollback`;
      expect((await created).status).toBe(201);
    });
    await sql.begin(async (held) => {
      await held`lock table pessoas in exclusive mode`;
      await problem(await hasty.post(newPessoa()), 503);
    });
    await sql.end();
    await hasty.stop();
  });

  test("while as many huge persons wait as may, one more gets 503 before it is read, and a small one is taken", async () => {
    const tiny = await serve({}, { queueLimit: 1 });
    const huge = (person: object) => tiny.post({ ...person, stack: new Array(1500).fill("huge") });
    const sql = connect(tiny.databaseUrl);
    await sql.begin(async (held) => {
      await held`lock table pessoas in exclusive mode`;
      const taken = [huge(newPessoa()), huge(newPessoa())]; // one in flight, and one that waits for it
      let answer = await huge({});
      for (; answer.status !== 503; answer = await huge({})) await problem(answer, 422);
      expect((await problem(answer, 503)).detail).toStartWith("too many huge persons are waiting");
      await problem(await tiny.post({}), 422);
      await held`rollback`;
      for (const { status } of await Promise.all(taken)) expect(status).toBe(201);
    });
    await sql.end();
    await tiny.stop();
  });
});

describe("a restart in between", () => {
  test("loses nobody", async () => {
    const before = await serve();
    const created = (await Promise.all(
      Array.from({ length: 30 }, async () => (await before.post(newPessoa())).json()),
    )) as Found[];
    await before.stop();
    const after = await serve({ DATABASE_URL: before.databaseUrl });
    expect(await after.count()).toBe(30);
    for (const person of created) {
      expect(await (await after.get(`/pessoas/${person.id}`)).json()).toEqual(person);
      expect(await after.search(person.apelido)).toEqual([person]);
    }
    await after.stop();
  });

  test("any number of instances may start at once on an empty database", async () => {
    const first = await serve();
    const started = await Promise.all(
      Array.from({ length: 5 }, () => serve({ DATABASE_URL: first.databaseUrl })),
    );
    await Promise.all(
      started.map(async (instance) => expect((await client(instance.url).get("/readyz")).status).toBe(200)),
    );
    await Promise.all([first, ...started].map((instance) => instance.stop()));
  });
});
