import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { blockBytes, blockTokens, maxBlocks, prefixHashes } from "../../runtime/gateway/routing/prefix-hash.ts";
import { PrefixIndex } from "../../runtime/gateway/routing/prefix-index.ts";

const blocks = (count: number, from = 1): Uint32Array => Uint32Array.from({ length: count }, (_, at) => from + at * 7);

describe("prefix hashes", () => {
  const text = Buffer.alloc(10 * blockBytes, "You are a helpful assistant. ");

  test("one for each full block, bounded", () => {
    expect(prefixHashes(text.subarray(0, blockBytes - 1))).toHaveLength(0);
    expect(prefixHashes(text.subarray(0, 2 * blockBytes + 5))).toHaveLength(2);
    expect(prefixHashes(Buffer.alloc((maxBlocks + 9) * blockBytes))).toHaveLength(maxBlocks);
  });

  test("equal up to the first byte that differs, and different from there on", () => {
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const other = Buffer.from(text);
        other[at] = (other[at] ?? 0) ^ change;
        const [before, after] = [prefixHashes(text), prefixHashes(other)];
        const block = Math.floor(at / blockBytes);
        expect(after.subarray(0, block)).toEqual(before.subarray(0, block));
        for (let index = block; index < 10; index += 1) expect(after[index]).not.toBe(before[index]);
      }),
    );
  });

  test("the same wherever the bytes lie in memory, another for each seed", () => {
    const shifted = Buffer.concat([Buffer.from("abc"), text]).subarray(3);
    expect(prefixHashes(shifted)).toEqual(prefixHashes(text));
    expect(prefixHashes(text, 1)[0]).not.toBe(prefixHashes(text, 2)[0]);
  });

  test("a block that repeats has another hash at each place", () => {
    expect(new Set(prefixHashes(Buffer.alloc(100 * blockBytes))).size).toBe(100);
  });
});

describe("prefix index", () => {
  const kvTokens = 100 * blockTokens;
  function index(options: ConstructorParameters<typeof PrefixIndex>[0] = {}): PrefixIndex {
    const made = new PrefixIndex({ maxEntries: 65_536, ...options });
    for (const owner of [0, 1, 2]) made.add(owner, kvTokens);
    return made;
  }

  test("a prompt is found where it was routed, at once, and nowhere else", () => {
    const made = index();
    made.record(blocks(10), 1, 0);
    expect([0, 1, 2].map((owner) => made.match(blocks(10), owner, 0))).toEqual([0, 10, 0]);
  });

  test("finds every length of a common beginning", () => {
    const made = index();
    made.record(blocks(20), 0, 0);
    for (let common = 0; common <= 20; common += 1) {
      const prompt = Uint32Array.of(...blocks(common), ...blocks(13, 1_000_003));
      expect(made.match(prompt, 0, 0)).toBe(common);
    }
  });

  test("a replica forgets its least recently used prompts beyond its capacity", () => {
    const made = index();
    for (const start of [1, 10_001, 20_001]) made.record(blocks(40, start), 0, 0);
    expect(made.match(blocks(40, 1), 0, 0)).toBe(0);
    expect(made.match(blocks(40, 10_001), 0, 0)).toBe(40);
    made.record(blocks(40, 10_001), 0, 0);
    made.record(blocks(40, 30_001), 0, 0);
    expect(made.match(blocks(40, 10_001), 0, 0)).toBe(40);
    expect(made.match(blocks(40, 20_001), 0, 0)).toBe(0);
    expect(made.fill(0)).toBeCloseTo(0.8);
  });

  test("what is not used for its time to live is forgotten", () => {
    const made = index({ timeToLiveMs: 1_000 });
    made.record(blocks(5), 0, 0);
    expect(made.match(blocks(5), 0, 1_000)).toBe(5);
    expect(made.match(blocks(5), 0, 1_001)).toBe(0);
    expect(made.fill(0)).toBe(0);
  });

  test("a replica that restarts or leaves holds nothing, and others keep theirs", () => {
    const made = index();
    made.record(blocks(5), 0, 0);
    made.record(blocks(5), 1, 0);
    made.record(blocks(5), 2, 0);
    made.forget(0);
    made.remove(1);
    made.add(1, kvTokens);
    expect([0, 1, 2].map((owner) => made.match(blocks(5), owner, 0))).toEqual([0, 0, 5]);
    made.record(blocks(3), 0, 0);
    expect(made.match(blocks(5), 0, 0)).toBe(3);
  });

  test("a request that was never prefilled takes back what nobody has used since", () => {
    const made = index();
    const record = made.record(blocks(10), 0, 0);
    made.record(blocks(4), 0, 0);
    made.revoke(blocks(10), 0, record);
    expect(made.match(blocks(10), 0, 0)).toBe(4);
    expect(made.fill(0)).toBeCloseTo(0.04);
  });

  test("never exceeds its bounds, and never finds what was not recorded", () => {
    const operation = fc.record({ owner: fc.nat(2), start: fc.nat(40), length: fc.integer({ min: 1, max: 60 }) });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 300 }), (operations) => {
        const made = index({ maxEntries: 256 });
        const sizeBytes = made.sizeBytes;
        const longest = new Map<string, number>();
        for (const [nowMs, { owner, start, length }] of operations.entries()) {
          made.record(blocks(length, start * 1_000_003), owner, nowMs);
          const key = `${owner} ${start}`;
          longest.set(key, Math.max(length, longest.get(key) ?? 0));
          expect(made.match(blocks(60, start * 1_000_003), owner, nowMs)).toBeLessThanOrEqual(longest.get(key) ?? 0);
          expect(made.fill(owner)).toBeGreaterThanOrEqual(0);
          expect(made.fill(owner)).toBeLessThanOrEqual(1);
        }
        expect(made.sizeBytes).toBe(sizeBytes);
      }),
      { numRuns: 50 },
    );
  });

  test("2,048 steps and more of small prompts still fit: the newest are known, to the capacity", () => {
    const made = index();
    for (let prompt = 0; prompt < 5_000; prompt += 1) made.record(Uint32Array.of(prompt * 31 + 1), 0, prompt);
    const known = Array.from({ length: 5_000 }, (_, prompt) => made.match(Uint32Array.of(prompt * 31 + 1), 0, 5_000));
    expect(known.slice(-100).every((found) => found === 1)).toBe(true);
    expect(known.reduce((sum, found) => sum + found, 0)).toBe(100);
  });
});
