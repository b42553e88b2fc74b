/**
 * Part number `index` of an IPv4 range that is cut into parts of 2^(32-prefixLength) addresses: `partOfRange("10.40.0.0/16",
 * { prefixLength: 24, index: 2 })` is `10.40.2.0/24`. Throws a RangeError when there is no such part.
 */
export function partOfRange(cidr: string, part: { readonly prefixLength: number; readonly index: number }): string {
  const [whole = 33, ...bytes] =
    /^(\d+)\.(\d+)\.(\d+)\.(\d+)\/(\d+)$/.exec(cidr)?.slice(1).map(Number).toReversed() ?? [];
  if (whole > 32 || bytes.some((byte) => byte > 255)) throw new RangeError(`${cidr} is not an IPv4 range.`);
  const parts = 2 ** (part.prefixLength - whole);
  if (part.prefixLength > 32 || !(part.index >= 0 && part.index < parts)) {
    throw new RangeError(`${cidr} is too small: it has no part ${part.index} of size /${part.prefixLength}.`);
  }
  const size = 2 ** (32 - part.prefixLength);
  const start = bytes.reduceRight((sum, byte) => sum * 256 + byte, 0);
  const aligned = start - (start % 2 ** (32 - whole)) + part.index * size;
  const dotted = [24, 16, 8, 0].map((shift) => Math.floor(aligned / 2 ** shift) % 256).join(".");
  return `${dotted}/${part.prefixLength}`;
}
