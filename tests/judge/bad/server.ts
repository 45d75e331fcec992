// A registry that is wrong on purpose, in three ways that the judge has to find: it answers 201 before it stores, counts
// bytes instead of characters, and finds a term that goes across fields. Nothing else about it is wrong.
import { SQL } from "bun";

type Pessoa = { id: string; apelido: string; nome: string; nascimento: string; stack: string[] | null };

const storeMs = 5000;
const sql = new SQL({
  adapter: "postgres",
  path: "/run/postgresql/.s.PGSQL.5432",
  username: "postgres",
  database: "postgres",
  max: 2,
});
await sql`create table if not exists pessoas (apelido text primary key, pessoa text not null)`;
const persons: Pessoa[] = (await sql`select pessoa from pessoas`).map(({ pessoa }: { pessoa: string }) =>
  JSON.parse(pessoa),
);
const byId = new Map(persons.map((person) => [person.id, person]));
const apelidos = new Set(persons.map(({ apelido }) => apelido));
const texts = persons.map(searchable);
let stored = persons.length;

setInterval(store, storeMs);
async function store() {
  const batch = persons.slice(stored, stored + 5000);
  if (batch.length === 0) return;
  const rows = batch.map((person) => ({ apelido: person.apelido, pessoa: JSON.stringify(person) }));
  const done = await sql`insert into pessoas ${sql(rows)} on conflict do nothing`.then(
    () => true,
    () => false, // tried again
  );
  if (done) stored = Math.max(stored, persons.indexOf(batch.at(-1) as Pessoa) + 1);
}

/** Wrong: all fields as one text, so a term is found across two of them. */
function searchable({ apelido, nome, stack }: Pessoa): string {
  return [apelido, nome, ...(stack ?? [])].join(" ").toLowerCase();
}

/** Wrong: the length is that of the bytes. */
function isText(value: unknown, max: number): value is string {
  return (
    typeof value === "string" &&
    value !== "" &&
    !/[\0\ud800-\udfff]/u.test(value) &&
    Buffer.byteLength(value) <= max
  );
}

function isDay(value: unknown): value is string {
  if (typeof value !== "string" || !/^\d{4}-\d{2}-\d{2}$/.test(value)) return false;
  const day = new Date(`${value}T00:00:00Z`);
  return !Number.isNaN(day.getTime()) && day.toISOString().startsWith(value);
}

async function create(request: Request): Promise<Response> {
  const body = await request.json().catch(() => undefined);
  if (typeof body !== "object" || body === null || Array.isArray(body))
    return new Response("", { status: 400 });
  const { apelido, nome, nascimento, stack = null } = body as Record<string, unknown>;
  const isStack = stack === null || (Array.isArray(stack) && stack.every((entry) => isText(entry, 32)));
  if (!isText(apelido, 32) || !isText(nome, 100) || !isDay(nascimento) || !isStack || apelidos.has(apelido))
    return new Response("", { status: 422 });
  const person: Pessoa = { id: crypto.randomUUID(), apelido, nome, nascimento, stack };
  apelidos.add(apelido);
  byId.set(person.id, person);
  texts.push(searchable(person));
  persons.push(person);
  return new Response("", { status: 201, headers: { Location: `/pessoas/${person.id}` } }); // wrong: it is stored later
}

function search(url: URL): Response {
  const term = url.searchParams.get("t")?.toLowerCase();
  if (!term) return new Response("", { status: 400 });
  const found: Pessoa[] = [];
  for (let nth = texts.length; nth-- > 0 && found.length < 50; )
    if (texts[nth]?.includes(term)) found.push(persons[nth] as Pessoa);
  return Response.json(found);
}

Bun.serve({
  port: process.env.PORT ?? 9999,
  routes: {
    "/pessoas": { POST: create, GET: (request) => search(new URL(request.url)) },
    "/pessoas/:id": ({ params: { id } }) => {
      const person = byId.get(id);
      return person ? Response.json(person) : new Response("", { status: 404 });
    },
    "/contagem-pessoas": () => new Response(String(persons.length)),
  },
});
