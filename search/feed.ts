import type { Query } from "../database/pool.ts";
import type { Hit, Memory } from "./memory.ts";

/** Keeps a memory equal to the database. */
type Feed = {
  /**
   * Loads the next new persons. True when all persons stored before this call are in memory. Calls must not overlap.
   */
  next(): Promise<boolean>;
  isLoaded(): boolean;
  /** Parameters of `currentCondition`. */
  mark(): string[];
  hasIndexed(): boolean;
};

/** Transactions are numbered. */
type Position = {
  /** Which server and which table. */
  store: string;
  /** The first transaction to load, and earlier ones that were open at the last snapshot. */
  from: bigint;
  open: bigint[];
  /** The last transaction whose rows are all in memory. */
  last: bigint;
  /** The end of the load; null: the current transaction. */
  end: string | null;
  /** The snapshot at the start of this load. */
  snapshot: string | undefined;
};

const portion = 500; // rows: a few milliseconds of CPU
const lastTransaction = "18446744073709551615";
const start: Position = {
  store: "",
  from: 0n,
  open: [],
  last: 0n,
  end: lastTransaction,
  snapshot: undefined,
};

const storeName = "pg_postmaster_start_time() || ' ' || pg_relation_filenode('pessoas')";

/**
 * SQL: whether a memory has all persons stored now. Also false while loaded rows may come again. `first`: the number of
 * the first of two parameters.
 */
export const currentCondition = (first: number) => `
  $${first}::text = ${storeName}
    and not exists (select from pessoas where busca is null and tx >= $${first + 1}::xid8)`;

/**
 * Each row has the number of its transaction. A row that became visible since a snapshot is of a transaction that was
 * open then or began later, so no row is missed, in whatever order transactions commit. The next load starts behind
 * the last transaction that stored a row, not at the snapshot's end: a crashed server reuses numbers that stored
 * nothing. A restored backup has another server's numbers, so only the first load takes rows above the current number.
 * A row may come twice: from a load of several portions, or at the same number of another server.
 */
const statement = `
  select null::uuid as id, null::tid as ctid, pg_current_snapshot()::text as apelido,
    ${storeName} as nome,
    to_json(exists (select from short_terms where term = '')) as stack, null::xid8 as tx
  union all
  select id, ctid, apelido, nome, stack, tx from pessoas where busca is null and tx = any ($2::xid8[])
  union all
  (select id, ctid, apelido, nome, stack, tx from pessoas
    where busca is null and tx >= $1::xid8 and tx < coalesce($3::xid8, pg_snapshot_xmax(pg_current_snapshot()))
    order by tx fetch first ${portion} rows with ties)`;

/** The first row is no person: `apelido` is the snapshot, `nome` the store, `stack` whether the index has persons. */
type Row = Hit & { apelido: string; nome: string; stack: string | null; tx: string };

export function openFeed(memory: Memory, query: Query): Feed {
  let position = start;
  let loaded = false;
  let indexed = false;
  const repeated = new Set<string>(); // ids whose rows will come again

  function forget() {
    memory.clear();
    repeated.clear();
    position = start;
    loaded = indexed = false;
  }

  return {
    async next() {
      const loading = position;
      const rows = await query<Row>(statement, [
        String(loading.from),
        `{${loading.open.join()}}`,
        loading.end,
      ]);
      if (position !== loading) return false; // abandoned meanwhile
      const [head, ...persons] = rows as [Row, ...Row[]];
      const { apelido: current, nome: store } = head;
      // Another server, or a table that was truncated or restored.
      if (loading.store !== "" && loading.store !== store) {
        forget();
        return false;
      }
      indexed = head.stack === "true";
      const snapshot = loading.snapshot ?? current;
      const { end, open } = parse(snapshot);
      let { from, last } = loading;
      for (const person of persons) {
        const tx = BigInt(person.tx);
        if (!repeated.has(person.id)) memory.add(person);
        if (tx >= end || open.includes(tx)) repeated.add(person.id);
        else {
          repeated.delete(person.id);
          if (tx > last) last = tx;
        }
        if (tx >= from) from = tx + 1n;
      }
      if (persons.length >= portion) {
        position = { ...loading, store, snapshot, from, last, open: [] };
        return false;
      }
      if (last >= end) last = end - 1n; // another server's number, or this server crashed
      from = last + 1n;
      position = { store, from, open: open.filter((tx) => tx < from), last, end: null, snapshot: undefined };
      loaded = true;
      return loading.snapshot === undefined; // else the snapshot is older than this call
    },
    isLoaded: () => loaded,
    mark() {
      const { store, from, open, snapshot } = position;
      return [snapshot === undefined ? store : "", String(open[0] ?? from)];
    },
    hasIndexed: () => indexed,
  };
}

/** `end`: the first transaction after a snapshot; `open`: earlier ones that were open at it. */
function parse(snapshot: string): { end: bigint; open: bigint[] } {
  const [, end = "", open = ""] = snapshot.split(":");
  return { end: BigInt(end), open: open === "" ? [] : open.split(",").map(BigInt) };
}
