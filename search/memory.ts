import { addPieces, bitsOf, blockBytes, filterBytes, mayHold } from "./blocks.ts";
import { common, enough } from "./common.ts";

/** A person, and where its row is: by that Postgres reads it in half of the time that it takes by its id. */
export type Hit = { id: string; ctid: string };

type Mark = { at: number; emptied: number };

/** The search texts of the first persons, and whose they are. */
export type Memory = {
  /** Adds one. `stack` is JSON. */
  add(person: Hit & { apelido: string; nome: string; stack: string | null }): void;
  /** Up to 50 persons with `term`, a term in lower case without U+0000, in one field; only those who were added since `mark`. */
  find(term: string, mark?: Mark): Hit[];
  /** The present end of the texts. */
  mark(): Mark;
  /** Whether so many stacks have `element`, as it was sent, that a search for it never looks further. */
  isCommon(element: string): boolean;
  clear(): void;
  persons(): number;
  bytes(): number;
};

// As text: to pack it takes longer than all else.
const idBytes = 36;
const hitBytes = idBytes + "(4294967295,65535)".length;
const elementsKnown = 10_000;
const firstBytes = 64 * 1024;

/**
 * One growing buffer of UTF-8, in which each field ends with a zero byte: no field and no term holds one. A byte scan of
 * 3 MB takes 0.3 ms, ten times less than one over strings; most searches scan little of it (blocks.ts). An element that 50 persons are found by is left out of the
 * texts after them: any 50 are an answer, and no person is ever removed.
 */
export function openMemory(): Memory {
  let text: Buffer = Buffer.allocUnsafeSlow(firstBytes);
  let hits: Buffer = Buffer.allocUnsafeSlow(firstBytes);
  let starts = new Uint32Array(1024); // of each person's text
  let filters: Buffer = Buffer.alloc(firstBytes); // of each block
  let blocks: number[] = []; // where each begins in the text
  let used = 0;
  let persons = 0;
  let emptied = 0; // how often
  let elements = common(elementsKnown);

  function textOf(apelido: string, nome: string, stack: string | null): string {
    let fields = `${apelido}\0${nome}\0`;
    if (stack !== null) {
      const own = new Set<string>(); // counted once, however often it is there
      for (const element of JSON.parse(stack) as string[]) {
        if (elements.has(element) || own.has(element)) continue;
        own.add(element);
        elements.add(element);
        fields += `${element}\0`;
      }
    }
    return fields.toLowerCase();
  }

  /** Whose text holds the byte at `at`. */
  const personAt = (at: number) => lastUpTo(starts, persons, at);
  const blockAt = (at: number) => lastUpTo(blocks, blocks.length, at);

  /** Where the filter is for a text that begins at `at`. */
  function filterFor(at: number): number {
    if (blocks.length === 0 || at >= (blocks.at(-1) as number) + blockBytes) {
      filters = grown(filters, blocks.length * filterBytes, filterBytes);
      blocks.push(at);
    }
    return (blocks.length - 1) * filterBytes;
  }

  function hitOf(person: number): Hit {
    const hit = hits.toString("latin1", person * hitBytes, (person + 1) * hitBytes);
    return { id: hit.slice(0, idBytes), ctid: hit.slice(idBytes).trimEnd() };
  }

  return {
    add({ id, ctid, apelido, nome, stack }) {
      const fields = textOf(apelido, nome, stack);
      text = grown(text, used, 3 * fields.length);
      hits = grown(hits, persons * hitBytes, hitBytes);
      if (persons === starts.length) {
        const longer = new Uint32Array(2 * persons);
        longer.set(starts);
        starts = longer;
      }
      starts[persons] = used;
      hits.write(id + ctid.padEnd(hitBytes - idBytes), persons * hitBytes, "latin1");
      const end = used + text.write(fields, used);
      const filter = filterFor(used); // first: it may replace `filters`
      addPieces(filters, filter, text, used, end);
      used = end;
      persons++;
    },
    find(term, mark = { at: 0, emptied }) {
      const wanted = Buffer.from(term);
      const bits = bitsOf(wanted);
      const start = mark.emptied === emptied ? mark.at : 0;
      const found = new Map<string, Hit>(); // a person may have been added twice (feed.ts)
      for (let block = blockAt(start); block < blocks.length; block++) {
        if (!mayHold(filters, block * filterBytes, bits)) continue;
        const all = text.subarray(0, blocks[block + 1] ?? used);
        for (let from = Math.max(start, blocks[block] as number); from < all.length; ) {
          const at = all.indexOf(wanted, from);
          if (at === -1) break;
          const person = personAt(at);
          const hit = hitOf(person);
          found.set(hit.id, hit);
          if (found.size === enough) return [...found.values()];
          from = person + 1 < persons ? (starts[person + 1] as number) : used;
        }
      }
      return [...found.values()];
    },
    isCommon: (element) => elements.has(element),
    mark: () => ({ at: used, emptied }),
    clear() {
      emptied++;
      [used, persons] = [0, 0];
      elements = common(elementsKnown);
      blocks = [];
      filters.fill(0);
    },
    persons: () => persons,
    bytes: () => used,
  };
}

/** Index of the last of the first `count` ascending `values` that is not above `value`. */
function lastUpTo(values: ArrayLike<number>, count: number, value: number): number {
  let [low, high] = [0, count - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((values[middle] as number) <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** `buffer` with room for `more` after the first `used` bytes. */
function grown(buffer: Buffer, used: number, more: number): Buffer {
  if (used + more <= buffer.length) return buffer;
  const longer = Buffer.alloc(Math.max(used + more, Math.ceil(buffer.length * 1.5)));
  buffer.copy(longer, 0, 0, used);
  return longer;
}
