import type { Query } from "../database/pool.ts";
import type { Hit, Memory } from "./memory.ts";

/** Keeps a memory equal to what the database shows. */
export type Feed = {
  /**
   * Asks for the next of the persons that are not in memory yet. True when all that were stored before this call are in it.
   * Calls must not overlap.
   */
  next(): Promise<boolean>;
  /** Whether all persons that were there at some moment are in memory. */
  isLoaded(): boolean;
  /** Whether there are persons who are not for the memory, as far as is known. */
  hasLater(): boolean;
};

/** `from` the first transaction to ask for, and those before it that were still open. `last`: the highest one whose rows are all read. */
type Position = {
  store: string;
  from: bigint;
  open: bigint[];
  last: bigint;
  upTo: string | null;
  target: string | undefined;
};

const portion = 500; // rows: a few milliseconds of an instance
const lastTransaction = "18446744073709551615";
const start: Position = {
  store: "",
  from: 0n,
  open: [],
  last: 0n,
  upTo: lastTransaction,
  target: undefined,
};

/**
 * Each row has the transaction that stored it. What is visible now and was not at an earlier snapshot was stored by a
 * transaction that was open then or had not begun: nothing is missed, in whatever order transactions commit and however
 * long one stays open. A question begins behind the last transaction that stored a row, not at the end of the snapshot: a
 * server that crashes gives out numbers again that stored nothing. Rows of a restored backup have numbers of another
 * server's: the first load takes all there are, later questions end at the present number. A row may come twice, from a
 * load of several portions or when the present number reaches one of another server's.
 */
const statement = `
  select null::uuid as id, null::tid as ctid, pg_current_snapshot()::text as apelido,
    pg_postmaster_start_time() || ' ' || pg_relation_filenode('pessoas') as nome,
    to_json(exists (select from curtos where termo = '')) as stack, null::xid8 as tx
  union all
  select id, ctid, apelido, nome, stack, tx from pessoas where busca is null and tx = any ($2::xid8[])
  union all
  (select id, ctid, apelido, nome, stack, tx from pessoas
    where busca is null and tx >= $1::xid8 and tx < coalesce($3::xid8, pg_snapshot_xmax(pg_current_snapshot()))
    order by tx fetch first ${portion} rows with ties)`;

/** The first one is no person: it has the snapshot as `apelido`, which store it is as `nome`, and as `stack` whether there are later ones. */
type Row = Hit & { apelido: string; nome: string; stack: string | null; tx: string };

export function openFeed(memory: Memory, query: Query): Feed {
  let position = start;
  let loaded = false;
  let later = false;
  const again = new Set<string>(); // ids in memory whose rows will come a second time

  function forget() {
    memory.clear();
    again.clear();
    position = start;
    loaded = later = false;
  }

  return {
    async next() {
      const asked = position;
      const rows = await query<Row>(statement, [String(asked.from), `{${asked.open.join()}}`, asked.upTo]);
      if (position !== asked) return false; // this question was given up, and asked anew
      const [head, ...persons] = rows as [Row, ...Row[]];
      const { apelido: seen, nome: store } = head;
      // Another server, or another table: an emptied or a restored one.
      if (asked.store !== "" && asked.store !== store) {
        forget();
        return false;
      }
      later = head.stack === "true";
      const target = asked.target ?? seen;
      const { end, open } = parse(target);
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
        position = { ...asked, store, target, from, last, open: [] };
        return false;
      }
      if (last >= end) last = end - 1n; // a number of another server's, and this one crashed
      from = last + 1n;
      position = { store, from, open: open.filter((tx) => tx < from), last, upTo: null, target: undefined };
      loaded = true;
      return asked.target === undefined; // else the snapshot is older than this call
    },
    isLoaded: () => loaded,
    hasLater: () => later,
  };
}

/** The first transaction that a snapshot knows nothing of, and those before it that had not ended. */
function parse(snapshot: string): { end: bigint; open: bigint[] } {
  const [, end = "", open = ""] = snapshot.split(":");
  return { end: BigInt(end), open: open === "" ? [] : open.split(",").map(BigInt) };
}
