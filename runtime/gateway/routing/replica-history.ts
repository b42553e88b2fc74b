/** Steps of time that one replica's history tells apart. 16 KB a replica, 16 MB for 1,000. */
const maxSteps = 1_024;

/**
 * When a replica last used how many blocks: enough to say which request's blocks have left its cache, without a list of
 * the blocks. What was last used at a stamp up to `horizon` is gone. Small requests share a step.
 */
export class ReplicaHistory {
  readonly #capacity: number;
  /** Blocks after which a step is full, so that all steps together hold twice the capacity. */
  readonly #stepBlocks: number;
  /** A ring, oldest first: the last stamp of each step, its time, and the blocks that were used in it last. */
  readonly #stamps = new Uint32Array(maxSteps);
  readonly #times = new Float64Array(maxSteps);
  readonly #blocks = new Uint32Array(maxSteps);
  #oldest = 0;
  #steps = 0;
  #total = 0;
  #horizon: number;

  constructor(capacity: number, horizon: number) {
    this.#capacity = capacity;
    this.#stepBlocks = Math.ceil((2 * capacity) / maxSteps);
    this.#horizon = horizon;
  }

  get horizon(): number {
    return this.#horizon;
  }

  /** Filled part, 0 to 1. */
  get fill(): number {
    return Math.min(1, this.#total / this.#capacity);
  }

  /** A request comes; what is entered from now on is its. Stamps rise, and times never go back. */
  begin(stamp: number, nowMs: number): void {
    if (this.#steps === 0 || (this.#blocks[this.#newest] ?? 0) >= this.#stepBlocks) {
      if (this.#steps === maxSteps) this.#drop();
      this.#steps += 1;
      this.#blocks[this.#newest] = 0;
    }
    this.#stamps[this.#newest] = stamp;
    this.#times[this.#newest] = nowMs;
  }

  /** One block more for the last request. */
  enter(): void {
    this.#count(this.#newest, 1);
  }

  /** A block that was last used at `stamp` is used anew, or gone. */
  leave(stamp: number): void {
    if (stamp <= this.#horizon) return;
    let low = 0;
    let high = this.#steps - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#stamps[(this.#oldest + middle) % maxSteps] ?? 0) < stamp) low = middle + 1;
      else high = middle;
    }
    this.#count((this.#oldest + low) % maxSteps, -1);
  }

  /** Forgets the oldest steps until the rest fits. The newest stays: a prompt that is longer than the cache is in use. */
  fit(): void {
    while (this.#steps > 1 && this.#total > this.#capacity) this.#drop();
  }

  /** Forgets what was last used before `sinceMs`. */
  expire(sinceMs: number): void {
    while (this.#steps > 0 && (this.#times[this.#oldest] ?? 0) < sinceMs) this.#drop();
  }

  /** Forgets everything up to `stamp`. */
  clear(stamp: number): void {
    this.#horizon = stamp;
    this.#steps = 0;
    this.#total = 0;
  }

  get #newest(): number {
    return (this.#oldest + this.#steps - 1) % maxSteps;
  }

  #drop(): void {
    this.#horizon = this.#stamps[this.#oldest] ?? this.#horizon;
    this.#total -= this.#blocks[this.#oldest] ?? 0;
    this.#oldest = (this.#oldest + 1) % maxSteps;
    this.#steps -= 1;
  }

  #count(place: number, change: 1 | -1): void {
    this.#blocks[place] = (this.#blocks[place] ?? 0) + change;
    this.#total += change;
  }
}
