/** Requests that one replica's history tells apart; older ones are forgotten first. 24 KB a replica. */
const maxRequests = 2_048;

/**
 * When a replica last used how many blocks: enough to say which request's blocks have left its cache, without a list of
 * the blocks. What was last used by a request at or before `horizon` is gone.
 */
export class ReplicaHistory {
  readonly #capacity: number;
  /** A ring: stamp, time and live blocks of each request, oldest first. */
  readonly #stamps = new Uint32Array(maxRequests);
  readonly #times = new Float64Array(maxRequests);
  readonly #blocks = new Uint32Array(maxRequests);
  #oldest = 0;
  #requests = 0;
  #total = 0;
  #horizon: number;

  constructor(capacity: number, stamp: number) {
    this.#capacity = capacity;
    this.#horizon = stamp;
  }

  get horizon(): number {
    return this.#horizon;
  }

  /** Filled part, 0 to 1. */
  get fill(): number {
    return Math.min(1, this.#total / this.#capacity);
  }

  /** A request comes; what is entered from now on is its. */
  begin(stamp: number, nowMs: number): void {
    if (this.#requests === maxRequests) this.#drop();
    const last = (this.#oldest + this.#requests) % maxRequests;
    this.#stamps[last] = stamp;
    this.#times[last] = nowMs;
    this.#blocks[last] = 0;
    this.#requests += 1;
  }

  /** One block more for the last request. */
  enter(): void {
    this.#count((this.#oldest + this.#requests - 1) % maxRequests, 1);
  }

  /** A block that the request of `stamp` used last is used anew, or gone. */
  leave(stamp: number): void {
    if (stamp <= this.#horizon) return;
    let low = 0;
    let high = this.#requests - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#stamps[(this.#oldest + middle) % maxRequests] ?? 0) < stamp) low = middle + 1;
      else high = middle;
    }
    this.#count((this.#oldest + low) % maxRequests, -1);
  }

  /** Forgets the oldest requests until the rest fits, and all before `sinceMs`. The newest request stays. */
  trim(sinceMs: number): void {
    while (this.#requests > 1 && (this.#total > this.#capacity || (this.#times[this.#oldest] ?? 0) < sinceMs)) {
      this.#drop();
    }
  }

  /** Forgets everything up to `stamp`. */
  clear(stamp: number): void {
    this.#horizon = stamp;
    this.#requests = 0;
    this.#total = 0;
  }

  #drop(): void {
    this.#horizon = this.#stamps[this.#oldest] ?? this.#horizon;
    this.#total -= this.#blocks[this.#oldest] ?? 0;
    this.#oldest = (this.#oldest + 1) % maxRequests;
    this.#requests -= 1;
  }

  #count(place: number, change: 1 | -1): void {
    this.#blocks[place] = (this.#blocks[place] ?? 0) + change;
    this.#total += change;
  }
}
