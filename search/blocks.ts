/*
 * Blocks of the texts in memory. A search scans only blocks whose Bloom filter has all pieces, of two or four bytes,
 * of its term: of 350 blocks about ten for a whole apelido, one for an unknown term.
 */

/** A block ends with the person that reaches this size. */
export const blockBytes = 8192;
const fourBits = 2 ** 14; // for pieces of four bytes: a full block sets three in ten
const twoBits = 2 ** 13; // after them, for pieces of two bytes
export const filterBytes = (fourBits + twoBits) / 8;

function bitOfFour(piece: number): number {
  const mixed = Math.imul(piece, 0x9e3779b1);
  return (mixed ^ (mixed >>> 15)) & (fourBits - 1);
}

function bitOfTwo(piece: number): number {
  const mixed = Math.imul(piece & 0xffff, 0x9e3779b1);
  return fourBits + ((mixed ^ (mixed >>> 15)) & (twoBits - 1));
}

/** Adds the pieces of `bytes` between `from` and `to` to the filter at offset `filter`. */
export function addPieces(
  filters: Uint8Array,
  filter: number,
  bytes: Uint8Array,
  from: number,
  to: number,
): void {
  let last = 0; // the last four bytes
  for (let at = from; at < to; at++) {
    last = (last << 8) | (bytes[at] as number);
    if (at > from) set(filters, filter, bitOfTwo(last));
    if (at >= from + 3) set(filters, filter, bitOfFour(last));
  }
}

function set(filters: Uint8Array, filter: number, bit: number): void {
  const at = filter + (bit >> 3);
  filters[at] = (filters[at] as number) | (1 << (bit & 7));
}

/** The bits of the longest pieces of `term`, which every block with the term has set. Empty for a single byte. */
export function bitsOf(term: Uint8Array): number[] {
  const [length, bitOf] = term.length < 4 ? [2, bitOfTwo] : [4, bitOfFour];
  const bits: number[] = [];
  let last = 0;
  for (let at = 0; at < term.length; at++) {
    last = (last << 8) | (term[at] as number);
    if (at >= length - 1) bits.push(bitOf(last));
  }
  return bits;
}

/** False when the block of the filter at offset `filter` cannot contain the term of `bits`. */
export function mayContain(filters: Uint8Array, filter: number, bits: number[]): boolean {
  for (const bit of bits) {
    if (!((filters[filter + (bit >> 3)] as number) & (1 << (bit & 7)))) return false;
  }
  return true;
}
