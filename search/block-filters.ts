/*
 * Blocks of the texts in memory. A search scans only blocks whose Bloom filter has all pieces of its term, of two and of
 * four bytes: the blocks with the term, and hardly any other one.
 */

/** A block ends with the person that reaches this size. */
export const blockBytes = 8192;
const fourBits = 2 ** 14; // for pieces of four bytes: a full block sets three in ten
const twoBits = 2 ** 13; // after them, for pieces of two bytes

function bitOfFour(piece: number): number {
  const mixed = Math.imul(piece, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & (fourBits - 1);
}

function bitOfTwo(piece: number): number {
  const mixed = Math.imul(piece & 0xffff, 0x9e3779b1);
  return fourBits + ((mixed ^ (mixed >>> 15)) & (twoBits - 1));
}

/** The bits of all pieces of `bytes` between `from` and `to`. */
function bitsOf(bytes: Uint8Array, from: number, to: number): number[] {
  const bits: number[] = [];
  let last = 0; // the last four bytes
  for (let at = from; at < to; at++) {
    last = (last << 8) | (bytes[at] as number);
    if (at > from) bits.push(bitOfTwo(last));
    if (at >= from + 3) bits.push(bitOfFour(last));
  }
  return bits;
}

/** Filters of 32 blocks share an array with one word for each bit: one read answers for all of them. */
export function blockFilters() {
  let groups: Uint32Array[] = [];
  return {
    /** Adds the pieces of `bytes` between `from` and `to`. */
    add(block: number, bytes: Uint8Array, from: number, to: number): void {
      groups[block >> 5] ??= new Uint32Array(fourBits + twoBits);
      const words = groups[block >> 5] as Uint32Array;
      const own = 1 << (block & 31);
      for (const bit of bitsOf(bytes, from, to)) words[bit] = (words[bit] as number) | own;
    },
    /** The blocks from `first` on that may contain `term`, in order. For a single byte also some that do not exist. */
    *blocksOf(term: Uint8Array, first: number): Generator<number> {
      const bits = bitsOf(term, 0, term.length); // none for a single byte
      for (let group = first >> 5; group < groups.length; group++) {
        const words = groups[group] as Uint32Array;
        let found = group === first >> 5 ? -1 << (first & 31) : -1;
        for (const bit of bits) found &= words[bit] as number;
        for (; found !== 0; found &= found - 1) yield group * 32 + 31 - Math.clz32(found & -found);
      }
    },
    clear(): void {
      groups = [];
    },
  };
}
