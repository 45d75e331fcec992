// Hashes of runs of five bytes. The texts of 50,000 persons set half of these bits. They are 512 KB, which a processor keeps
// close; with four times as many, which would rule out a few terms more, a person takes three times as long to add.
const lastBit = 2 ** 22 - 1;

/** For addRuns and mayHold. */
export const newRuns = (): Uint8Array => new Uint8Array((lastBit + 1) / 8);

// The hash stands twice, and `| 0` keeps it an integer: a call or a double would make both three times as slow.

/** Adds to `runs` those within `bytes` from `from` to `to`, a text of its own. */
export function addRuns(runs: Uint8Array, bytes: Uint8Array, from: number, to: number): void {
  let last4 = 0;
  for (let at = from; at < to; at++) {
    const byte = bytes[at] as number;
    const mixed = (Math.imul(last4, 0x9e3779b1) + Math.imul(byte, 0x85ebca6b)) | 0;
    const hash = (mixed ^ (mixed >>> 15)) & lastBit;
    runs[hash >> 3] = (runs[hash >> 3] as number) | (1 << (hash & 7));
    last4 = (last4 >>> 8) | (byte << 24);
  }
}

/**
 * False when no text whose runs were added can contain `bytes`: a Bloom filter with one hash. Nearly every term that no person
 * holds has such a run, so nothing is scanned for it: of the contest's terms nine in ten.
 */
export function mayHold(runs: Uint8Array, bytes: Uint8Array): boolean {
  let last4 = 0;
  for (let at = 0; at < bytes.length; at++) {
    const byte = bytes[at] as number;
    const mixed = (Math.imul(last4, 0x9e3779b1) + Math.imul(byte, 0x85ebca6b)) | 0;
    const hash = (mixed ^ (mixed >>> 15)) & lastBit;
    if (at >= 4 && !((runs[hash >> 3] as number) & (1 << (hash & 7)))) return false;
    last4 = (last4 >>> 8) | (byte << 24);
  }
  return true;
}
