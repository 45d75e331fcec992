import type { Query } from "../database/pool.ts";
import type { Hit, Memory } from "./memory.ts";

/** Keeps a memory equal to what the database shows. */
export type Feed = {
  /**
   * Loads the next persons that are not in memory yet. True when all persons that were stored before this call are in memory.
   * Calls must not overlap.
   */
  next(): Promise<boolean>;
  /** Whether the first load is complete. */
  isLoaded(): boolean;
  /** Whether the index had persons at the last question. */
  hasIndexed(): boolean;
};

/** What the next question asks for. Transactions are numbered. */
type Position = {
  /** Which server and which table. */
  store: string;
  /** The first transaction to ask for, and earlier ones that were open at the last snapshot. */
  from: bigint;
  open: bigint[];
  /** The last transaction whose rows are all in memory. */
  last: bigint;
  /** The end of the question; null: the present one. */
  end: string | null;
  /** The snapshot that this load began with. */
  snapshot: string | undefined;
};

const portion = 500; // rows: a few milliseconds of an instance
const lastTransaction = "18446744073709551615";
const start: Position = {
  store: "",
  from: 0n,
  open: [],
  last: 0n,
  end: lastTransaction,
  snapshot: undefined,
};

/**
 * Each row has the number of the transaction that stored it. A row that is visible now and was not at an earlier snapshot was
 * stored by a transaction that was open then or began later. So no row is missed, in whatever order transactions commit
 * and however long one stays open. A question begins behind the last transaction that stored a row and not at the end of
 * the snapshot, because a server that crashes uses numbers again that stored nothing. Rows of a restored backup have
 * numbers of another server: the first load takes all rows, later questions end at the present number. A row may come
 * twice, from a load of several portions or when the present number reaches one of another server.
 */
const statement = `
  select null::uuid as id, null::tid as ctid, pg_current_snapshot()::text as apelido,
    pg_postmaster_start_time() || ' ' || pg_relation_filenode('pessoas') as nome,
    to_json(exists (select from short_terms where term = '')) as stack, null::xid8 as tx
  union all
  select id, ctid, apelido, nome, stack, tx from pessoas where busca is null and tx = any ($2::xid8[])
  union all
  (select id, ctid, apelido, nome, stack, tx from pessoas
    where busca is null and tx >= $1::xid8 and tx < coalesce($3::xid8, pg_snapshot_xmax(pg_current_snapshot()))
    order by tx fetch first ${portion} rows with ties)`;

/** The first row is no person: its `apelido` is the snapshot, its `nome` the store, its `stack` whether the index has persons. */
type Row = Hit & { apelido: string; nome: string; stack: string | null; tx: string };

export function openFeed(memory: Memory, query: Query): Feed {
  let position = start;
  let loaded = false;
  let indexed = false;
  const again = new Set<string>(); // ids in memory whose rows will come a second time

  function forget() {
    memory.clear();
    again.clear();
    position = start;
    loaded = indexed = false;
  }

  return {
    async next() {
      const asked = position;
      const rows = await query<Row>(statement, [String(asked.from), `{${asked.open.join()}}`, asked.end]);
      if (position !== asked) return false; // this question was abandoned and asked again
      const [head, ...persons] = rows as [Row, ...Row[]];
      const { apelido: seen, nome: store } = head;
      // Another server, or a table that was truncated or restored.
      if (asked.store !== "" && asked.store !== store) {
        forget();
        return false;
      }
      indexed = head.stack === "true";
      const snapshot = asked.snapshot ?? seen;
      const { end, open } = parse(snapshot);
      let { from, last } = asked;
      for (const person of persons) {
        const tx = BigInt(person.tx);
        if (!again.has(person.id)) memory.add(person);
        if (tx >= end || open.includes(tx)) again.add(person.id);
        else {
          again.delete(person.id);
          if (tx > last) last = tx;
        }
        if (tx >= from) from = tx + 1n;
      }
      if (persons.length >= portion) {
        position = { ...asked, store, snapshot, from, last, open: [] };
        return false;
      }
      if (last >= end) last = end - 1n; // a number of another server, and this one crashed
      from = last + 1n;
      position = { store, from, open: open.filter((tx) => tx < from), last, end: null, snapshot: undefined };
      loaded = true;
      return asked.snapshot === undefined; // else the snapshot is older than this call
    },
    isLoaded: () => loaded,
    hasIndexed: () => indexed,
  };
}

/** The first transaction that began after a snapshot, and earlier ones that were open at it. */
function parse(snapshot: string): { end: bigint; open: bigint[] } {
  const [, end = "", open = ""] = snapshot.split(":");
  return { end: BigInt(end), open: open === "" ? [] : open.split(",").map(BigInt) };
}
