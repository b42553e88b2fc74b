/**
 * KV cache of a simulated engine, counted in tokens. A block with a name stays after its last user has gone, until its
 * room is needed: least recently used first.
 */
export class BlockCache {
  readonly #capacity: number;
  readonly #blockTokens: number;
  /** Users of each named block that has any. */
  readonly #users = new Map<number, number>();
  /** Named blocks without users, the first to leave first. */
  readonly #idle = new Set<number>();
  /** Tokens that users hold, named or not. */
  #held = 0;

  constructor(capacity: number, blockTokens: number) {
    this.#capacity = capacity;
    this.#blockTokens = blockTokens;
  }

  /** Tokens that can be had, idle blocks included. */
  get available(): number {
    return this.#capacity - this.#held;
  }

  /** Part that users hold, 0 to 1. */
  get usage(): number {
    return this.#held / this.#capacity;
  }

  /** Takes the longest run of cached blocks that `blocks` begins with, `limit` at most. */
  take(blocks: readonly number[], limit: number): number[] {
    const taken: number[] = [];
    for (const block of blocks) {
      if (taken.length >= limit) break;
      const users = this.#users.get(block);
      if (users === undefined && !this.#idle.has(block)) break;
      if (users === undefined) this.#held += this.#blockTokens;
      this.#idle.delete(block);
      this.#users.set(block, (users ?? 0) + 1);
      taken.push(block);
    }
    return taken;
  }

  /** Room for tokens without a name; false when there is too little. */
  allocate(tokens: number): boolean {
    if (tokens > this.available) return false;
    this.#held += tokens;
    for (const oldest of this.#idle) {
      if (this.#held + this.#idle.size * this.#blockTokens <= this.#capacity) break;
      this.#idle.delete(oldest);
    }
    return true;
  }

  /** Names a block whose tokens its user had without a name; false when that name is taken and the block stays nameless. */
  name(block: number): boolean {
    if (this.#users.has(block) || this.#idle.has(block)) return false;
    this.#users.set(block, 1);
    return true;
  }

  /** Gives named blocks back, the last first, so that the end of a prompt leaves before its beginning; and tokens. */
  release(blocks: readonly number[], tokens: number): void {
    this.#held -= tokens;
    for (const block of blocks.toReversed()) {
      const users = (this.#users.get(block) ?? 1) - 1;
      if (users > 0) {
        this.#users.set(block, users);
        continue;
      }
      this.#users.delete(block);
      this.#idle.add(block);
      this.#held -= this.#blockTokens;
    }
  }
}
