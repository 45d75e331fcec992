import { blockBytes, blockFilters } from "./block-filters.ts";
import { counter } from "./bounded-counter.ts";
import { maxFound } from "./limits.ts";

/** A person and the place of its row: Postgres reads by place in half the time of a read by id. */
export type Hit = { id: string; ctid: string };

/** Their places, an array in the syntax of Postgres. */
export const placesOf = (hits: Hit[]): string => `{${hits.map(({ ctid }) => `"${ctid}"`).join()}}`;

/** `emptied` counts earlier calls of `clear`. */
type End = { at: number; emptied: number };

/** `stack` is JSON. */
type Person = Hit & { apelido: string; nome: string; stack: string | null };

export type Memory = ReturnType<typeof openMemory>;

// As text: packing a UUID costs more than adding all the rest.
const idBytes = 36;
const hitBytes = idBytes + "(4294967295,65535)".length;
export const elementsKnown = 10_000;
const firstBytes = 64 * 1024;

/**
 * One growing buffer of UTF-8; a zero byte ends each field. Scanning bytes is ten times as fast as scanning strings.
 * An element that 50 persons have is left out of later texts: those 50 are a full answer.
 */
export function openMemory() {
  let text: Buffer = Buffer.allocUnsafeSlow(firstBytes);
  let hits: Buffer = Buffer.allocUnsafeSlow(firstBytes);
  let starts = new Uint32Array(1024);
  let blocks: number[] = []; // where each begins
  const filters = blockFilters();
  let used = 0;
  let persons = 0;
  let emptied = 0;
  let elements = counter<string>(elementsKnown);

  function textOf(apelido: string, nome: string, stack: string | null): string {
    let fields = `${apelido}\0${nome}\0`;
    if (stack !== null) {
      const own = new Set<string>(); // an element counts once per person
      for (const element of JSON.parse(stack) as string[]) {
        if (elements.isFull(element) || own.has(element)) continue;
        own.add(element);
        elements.add(element);
        fields += `${element}\0`;
      }
    }
    return fields.toLowerCase();
  }

  const personAt = (at: number) => lastUpTo(starts, persons, at);
  const blockAt = (at: number) => lastUpTo(blocks, blocks.length, at);

  function hitOf(person: number): Hit {
    const hit = hits.toString("latin1", person * hitBytes, (person + 1) * hitBytes);
    return { id: hit.slice(0, idBytes), ctid: hit.slice(idBytes).trimEnd() };
  }

  return {
    add({ id, ctid, apelido, nome, stack }: Person): void {
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
      if (used >= (blocks.at(-1) ?? Number.NEGATIVE_INFINITY) + blockBytes) blocks.push(used);
      filters.add(blocks.length - 1, text, used, end);
      used = end;
      persons++;
    },
    /** Up to 50 persons. `term`: lower case, without U+0000. `since`: only persons added later. */
    find(term: string, since: End = { at: 0, emptied }): Hit[] {
      const needle = Buffer.from(term);
      const start = since.emptied === emptied ? since.at : 0;
      const found = new Map<string, Hit>(); // a person may be in memory twice (feed.ts)
      for (const block of filters.blocksOf(needle, blockAt(start))) {
        if (block >= blocks.length) break;
        const all = text.subarray(0, blocks[block + 1] ?? used);
        for (let from = Math.max(start, blocks[block] as number); from < all.length; ) {
          const at = all.indexOf(needle, from);
          if (at === -1) break;
          const person = personAt(at);
          const hit = hitOf(person);
          found.set(hit.id, hit);
          if (found.size === maxFound) return [...found.values()];
          from = person + 1 < persons ? (starts[person + 1] as number) : used;
        }
      }
      return [...found.values()];
    },
    /** Whether 50 persons have `element`, exactly as sent. */
    isCommon: (element: string) => elements.isFull(element), // `clear` replaces them
    end: (): End => ({ at: used, emptied }),
    clear(): void {
      emptied++;
      [used, persons] = [0, 0];
      elements = counter(elementsKnown);
      blocks = [];
      filters.clear();
    },
    persons: () => persons,
    bytes: () => used,
  };
}

/** Index of the last of the first `count` ascending `values` up to `value`. */
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
