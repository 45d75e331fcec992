import { afterAll, expect, test } from "bun:test";
import { once } from "node:events";
import net from "node:net";
import { join } from "node:path";
import { problem } from "../helpers/problem.ts";
import { client, type Found, newPessoa, padded } from "../helpers/requests.ts";
import { connect, query, serve, temporaryFolder } from "../helpers/support.ts";

const registry = await serve();
afterAll(registry.stop);

test("while 1,024 large bodies are arriving, one more gets 503, and small bodies are accepted", async () => {
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

test("unread answers take a bounded amount of memory: one more gets 503, small answers are sent, and large ones again when the clients are gone", async () => {
  await using folder = await temporaryFolder();
  const unix = join(folder.path, "api.sock");
  await using full = await serve({ SOCKET: unix });
  const { search, get, count } = client("http://x", { unix });
  await query(
    full.databaseUrl,
    `insert into pessoas (id, apelido, nome, nascimento, stack, busca)
     select gen_random_uuid(), n, '-', '2000-01-01', json_build_array(repeat('x', 60000)), 'large'
     from generate_series(1, 50) n;
     insert into short_terms values ('', gen_random_uuid())`, // marks that the index has rows
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
});

test("a create beyond the queue limit gets 503 with Retry-After, and succeeds when it is sent again", async () => {
  await using tiny = await serve({}, { queueLimit: 2, batchSize: 1 });
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
});

test("SEARCHES limits how many searches run in the database at once; the others wait and are answered", async () => {
  await using three = await serve({ SEARCHES: "3" }, { maxInMemory: 0 }); // no search is answered from memory
  const metric = async (name: string) => {
    const line = new RegExp(`^pessoas_batch_${name}{kind="search"} (\\d+)$`, "m");
    return Number(line.exec(await (await three.get("/metrics")).text())?.[1]);
  };
  await using sql = connect(three.databaseUrl);
  await sql.begin(async (held) => {
    await held`lock table pessoas in access exclusive mode`;
    const searches = Array.from({ length: 5 }, () => three.get("/pessoas?t=nobody"));
    while ((await metric("waiting")) < 2);
    expect(await metric("connections_busy")).toBe(3);
    await held`rollback`;
    for (const { status } of await Promise.all(searches)) expect(status).toBe(200);
  });
});

test("a create waits longer than DB_TIMEOUT_MS while the database answers pings, and gets 503 after twice that time", async () => {
  await using hasty = await serve({ DB_TIMEOUT_MS: "800" });
  await using sql = connect(hasty.databaseUrl);
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
});

test("when the queue of huge persons is full, one more gets 503 before it is validated, and a small one is accepted", async () => {
  await using tiny = await serve({}, { queueLimit: 1 });
  const huge = (person: object) => tiny.post({ ...person, stack: new Array(1500).fill("huge") });
  await using sql = connect(tiny.databaseUrl);
  await sql.begin(async (held) => {
    await held`lock table pessoas in exclusive mode`;
    const taken = [huge(newPessoa()), huge(newPessoa())]; // one in flight, one queued
    let answer = await huge({});
    for (; answer.status !== 503; answer = await huge({})) await problem(answer, 422);
    expect((await problem(answer, 503)).detail).toStartWith("too many huge persons are waiting");
    await problem(await tiny.post({}), 422);
    await held`rollback`;
    for (const { status } of await Promise.all(taken)) expect(status).toBe(201);
  });
});
