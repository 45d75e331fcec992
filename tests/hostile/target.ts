import { readFileSync, writeFileSync } from "node:fs";
import { startEmbedded } from "../../database/embedded.ts";
import schema from "../../schema.sql" with { type: "text" };
import { maxInMemory } from "../../search/limits.ts";
import { query, spawnServer, temporaryFolder } from "../helpers/support.ts";
import { services, topology } from "../helpers/topology.ts";

/** Through nginx in the contest's topology, or directly to `bun run server.ts` on a port, without limits. */
export type Way = "nginx" | "direct";

/** The attacked registry. */
export type Target = {
  way: Way;
  url: string;
  /** The processes whose memory is checked. */
  parts: readonly string[];
  /** The peak memory of each in bytes since the last call, and problems. */
  condition(): Promise<{ peak: number; problems: string[] }[]>;
  /** The last lines of its logs. */
  logs(): Promise<string>;
  /** Removes it, also after an abort. */
  remove(): Promise<void>;
};

// Twice the topology's limit, because Bun collects later when the machine has more memory.
const instanceMiB = 512;

/** The contest's topology, with this number of persons. */
export async function throughNginx(abandoned: AbortSignal, people: number): Promise<Target> {
  const { url, compose, up, health, sql, fill, remove } = topology(abandoned, { name: "hostile" });
  try {
    await up();
    await fill(() => populate(sql, people));
  } catch (error) {
    await remove();
    throw error;
  }
  return {
    way: "nginx",
    url,
    parts: services,
    condition: () =>
      Promise.all(
        services.map(async (service) => {
          const { peakBytes, killed, restarts } = await health(service);
          const problems: string[] = [];
          if (killed > 0) problems.push(`${service}: killed for its memory`);
          if (restarts > 0) problems.push(`${service}: restarted ${restarts} times`);
          return { peak: peakBytes, problems };
        }),
      ),
    logs: () => compose("logs", "--tail", "5"),
    remove: async () => void (await remove()),
  };
}

/** `bun run server.ts` on a free port, on a PostgreSQL with this number of persons. Its memory is known on Linux only. */
export async function directly(abandoned: AbortSignal, people: number): Promise<Target> {
  const folder = await temporaryFolder();
  const database = await startEmbedded(folder.path, () => {});
  const removeDatabase = async () => {
    await database.stop();
    await folder[Symbol.asyncDispose]();
  };
  try {
    const sql = (text: string) => {
      abandoned.throwIfAborted();
      return query(database.url, text);
    };
    await sql(schema);
    await populate(sql, people);
  } catch (error) {
    await removeDatabase();
    throw error;
  }
  const { url = "", child, stop, soFar } = await spawnServer({ DATABASE_URL: database.url });
  return {
    way: "direct",
    url,
    parts: ["server"],
    async condition() {
      const ended = child.exitCode ?? child.signalCode;
      if (ended !== null) return [{ peak: Number.NaN, problems: [`the server has ended: ${ended}`] }];
      if (process.platform !== "linux") return [{ peak: Number.NaN, problems: [] }];
      const [, kB] = /^VmHWM:\s+(\d+)/m.exec(readFileSync(`/proc/${child.pid}/status`, "utf8")) ?? [];
      writeFileSync(`/proc/${child.pid}/clear_refs`, "5"); // resets the peak
      const peak = Number(kB) * 1024;
      const tooMuch = peak > instanceMiB * 2 ** 20;
      return [{ peak, problems: tooMuch ? [`the server: more than ${instanceMiB} MiB`] : [] }];
    },
    logs: async () => soFar().split("\n").slice(-6).join("\n"),
    async remove() {
      await stop();
      await removeDatabase();
    },
  };
}

/** Inserts the rows that a server would have stored. */
async function populate(sql: (text: string) => Promise<unknown>, people: number): Promise<void> {
  const pick = (from: string, salt: string) =>
    `(array[${from}])[1 + abs(hashtext('${salt}' || n)) % ${from.split(",").length}]`;
  const first = pick("'Ana','José','Maria','João','Zoë','Ünal','Francisca','Antônio','Li','Beatriz'", "f");
  const last = pick(
    "'Silva','Santos','Oliveira','Souza','Pereira','Ferreira','Alves','Lima','Gomes','Ribeiro'",
    "l",
  );
  const language = pick("'C#','Java','Node','Oracle','Postgres','Go','Rust','PHP','Ruby','Elixir'", "s");
  for (let from = 1; from <= people; from += 50_000) {
    await sql(`
      insert into pessoas (id, apelido, nome, nascimento, stack, busca)
      select md5(n::text)::uuid, apelido, nome, date '1950-01-01' + n % 20000, json_build_array(everybody, stack),
        case when n > ${maxInMemory} then -- as search/index-text.ts writes it
          translate(lower(concat_ws(chr(1), apelido, nome, everybody, stack)), ' #-', '\u3c60\u3c63\u3c6d') end
      from generate_series(${from}, ${Math.min(people, from + 49_999)}) n,
        lateral (select 'n' || n || '-' || substr(md5('a' || n), 1, 8) as apelido,
          ${first} || ' ' || ${last} || ' ' || substr(md5('b' || n), 1, 12) as nome,
          'Backend' as everybody, ${language} as stack) person`);
    if (process.stderr.isTTY) process.stderr.write(`\r\x1b[Kfilling in: ${from + 49_999} of ${people}`);
  }
  // 20,000 of the indexed persons are enough for 50 rows of every term of one and two characters.
  await sql(`
    insert into short_terms (term, id)
    select term, id from (
      select term, id, row_number() over (partition by term) as nth
      from (
        select distinct id, substr(field, at, length) as term
        from (select * from pessoas where busca is not null limit 20000) as later,
          unnest(array[lower(apelido), lower(nome), lower(stack->>0), lower(stack->>1)]) as field,
          generate_series(1, length(field)) as at, generate_series(1, 2) as length
        where at + length <= length(field) + 1
      ) as terms
    ) as numbered
    where nth <= 50`);
  await sql("insert into short_terms select '', id from pessoas where busca is not null limit 50"); // marks that the index has rows
  await sql("vacuum analyze pessoas, short_terms");
  console.error(`${process.stderr.isTTY ? "\r\x1b[K" : ""}${people} people in the registry`);
}
