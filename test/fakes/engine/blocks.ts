import { hash53, tokenCharacters } from "./text.ts";

/** Splits a text into the chained hashes of its full blocks; what is left over is `tail`. */
export class BlockHasher {
  readonly hashes: number[] = [];
  readonly #characters: number;
  #tail = "";
  #last: number;

  constructor(blockTokens: number, salt: string) {
    this.#characters = blockTokens * tokenCharacters;
    this.#last = hash53(salt);
  }

  add(text: string): void {
    const whole = this.#tail + text;
    let start = 0;
    for (; start + this.#characters <= whole.length; start += this.#characters) {
      this.#last = hash53(whole.slice(start, start + this.#characters), this.#last);
      this.hashes.push(this.#last);
    }
    this.#tail = whole.slice(start);
  }
}

/**
 * KV blocks of one virtual GPU. A full block is known by its chained hash and stays after its last user has gone, until
 * its room is needed: least recently used first.
 */
export class BlockPool {
  readonly total: number;
  readonly #caching: boolean;
  readonly #users: Int32Array;
  readonly #hashOf: (number | undefined)[];
  readonly #blockOf = new Map<number, number>();
  /** Blocks that were never used, or whose content nobody can find. */
  readonly #empty: number[];
  /** Blocks with findable content and no user, the least recently used one first. */
  readonly #idle = new Set<number>();

  constructor(total: number, caching: boolean) {
    this.total = total;
    this.#caching = caching;
    this.#users = new Int32Array(total);
    this.#hashOf = Array.from({ length: total });
    this.#empty = Array.from({ length: total }, (_, index) => total - 1 - index);
  }

  /** Blocks that can be had, idle ones included. */
  get free(): number {
    return this.#empty.length + this.#idle.size;
  }

  /** Used part, 0 to 1. Idle blocks count as free, as vLLM counts them. */
  get usage(): number {
    return this.total === 0 ? 0 : 1 - this.free / this.total;
  }

  /** Whether a block with this content is in the cache. */
  has(hash: number): boolean {
    return this.#blockOf.has(hash);
  }

  /** Takes the longest run of cached blocks that `hashes` begins with, `limit` at most. */
  takeCached(hashes: readonly number[], limit: number): number[] {
    const taken: number[] = [];
    for (const hash of hashes) {
      const block = this.#blockOf.get(hash);
      if (block === undefined || taken.length >= limit) break;
      this.#idle.delete(block);
      this.#users[block] = this.#usersOf(block) + 1;
      taken.push(block);
    }
    return taken;
  }

  /** `count` blocks for new content, or null when there are fewer. */
  allocate(count: number): number[] | null {
    if (count > this.free) return null;
    return Array.from({ length: count }, () => {
      const block = this.#empty.pop() ?? this.#evict();
      this.#users[block] = 1;
      return block;
    });
  }

  /** Names the content of a block that is now full. The first block of equal ones is the one that is found. */
  seal(block: number, hash: number): void {
    if (!this.#caching || this.#blockOf.has(hash)) return;
    this.#hashOf[block] = hash;
    this.#blockOf.set(hash, block);
  }

  /** Gives blocks back, the last first, so that the end of a prompt leaves the cache before its beginning. */
  release(blocks: readonly number[]): void {
    for (const block of blocks.toReversed()) {
      this.#users[block] = this.#usersOf(block) - 1;
      if (this.#usersOf(block) > 0) continue;
      if (this.#hashOf[block] === undefined) this.#empty.push(block);
      else this.#idle.add(block);
    }
  }

  /** Forgets all idle content: a reset of the prefix cache. */
  forget(): void {
    for (const block of this.#idle) {
      this.#unname(block);
      this.#empty.push(block);
    }
    this.#idle.clear();
    for (const block of this.#blockOf.values()) this.#hashOf[block] = undefined;
    this.#blockOf.clear();
  }

  #evict(): number {
    const oldest = this.#idle.values().next();
    if (oldest.done === true) throw new Error("a block was counted as free that is not");
    this.#idle.delete(oldest.value);
    this.#unname(oldest.value);
    return oldest.value;
  }

  #unname(block: number): void {
    const hash = this.#hashOf[block];
    if (hash !== undefined) this.#blockOf.delete(hash);
    this.#hashOf[block] = undefined;
  }

  #usersOf(block: number): number {
    return this.#users[block] ?? 0;
  }
}
