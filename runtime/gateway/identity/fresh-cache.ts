import { PenstockError } from "../../contracts/errors.ts";

/** How long and how much a `FreshCache` remembers. */
export interface FreshCacheOptions<Value> {
  /** Reads one entry from where it is kept; undefined when there is none. */
  readonly load: (id: string) => Promise<Value | undefined>;
  /** An answer is never older than this while the store can be reached. */
  readonly freshMs: number;
  /** While the store cannot be reached, entries that were found go on being answered for this long. */
  readonly staleMs: number;
  /** Entries found and entries missing are bounded by this each, so that guesses evict nothing that exists. */
  readonly maxEntries: number;
  /** Loads under way at a time; more are refused with `overloaded`. */
  readonly maxLoads: number;
  /** Called once when loading begins to fail. */
  readonly onFailure: (cause: unknown) => void;
}

interface Entry<Value> {
  value: Value | undefined;
  /** When its load began: a change that happened later may be missing. */
  loadedAt: number;
  /** A failed load is not tried again before. */
  retryAt: number;
}

/**
 * A read-through cache of records that must be current within `freshMs`.
 * Entries in use are loaded again ahead of time, so that requests seldom wait for the store.
 */
export class FreshCache<Value> {
  readonly #options: FreshCacheOptions<Value>;
  readonly #found = new Map<string, Entry<Value>>();
  readonly #missing = new Map<string, Entry<Value>>();
  readonly #loads = new Map<string, Promise<Value | undefined>>();
  #isFailing = false;

  constructor(options: FreshCacheOptions<Value>) {
    this.#options = options;
  }

  /** The entry: at once where it is fresh, or a promise. Rejects with `overloaded` when nothing is known of it. */
  get(id: string): Value | undefined | Promise<Value | undefined> {
    const entry = this.#found.get(id) ?? this.#missing.get(id);
    if (entry === undefined) return this.#load(id);
    const age = performance.now() - entry.loadedAt;
    if (age >= this.#options.freshMs) return this.#loadOrStale(id, entry);
    // Half of the time is left: the load can end before the entry is too old.
    if (age >= this.#options.freshMs / 2 && entry.value !== undefined && this.#mayLoad(entry)) {
      void this.#load(id).catch(() => undefined);
    }
    return entry.value;
  }

  /** Forgets one entry, or all. */
  invalidate(id?: string): void {
    for (const map of [this.#found, this.#missing, this.#loads]) {
      if (id === undefined) map.clear();
      else map.delete(id);
    }
  }

  async #loadOrStale(id: string, entry: Entry<Value>): Promise<Value | undefined> {
    const isUsable = entry.value !== undefined && performance.now() - entry.loadedAt < this.#options.staleMs;
    if (isUsable && performance.now() < entry.retryAt) return entry.value;
    try {
      return await this.#load(id);
    } catch (error) {
      if (isUsable) return entry.value;
      throw error;
    }
  }

  #mayLoad(entry: Entry<Value>): boolean {
    return performance.now() >= entry.retryAt && this.#loads.size < this.#options.maxLoads;
  }

  #load(id: string): Promise<Value | undefined> {
    const running = this.#loads.get(id);
    if (running !== undefined) return running;
    if (this.#loads.size >= this.#options.maxLoads) {
      return Promise.reject(
        new PenstockError("overloaded", "Too many keys are being looked up; retry.", { retryAfterSeconds: 1 }),
      );
    }
    const load = this.#loadNow(id, () => this.#loads.get(id) === load);
    this.#loads.set(id, load);
    return load;
  }

  /** `isCurrent` says whether the entry was not invalidated meanwhile: what was read may be older than that. */
  async #loadNow(id: string, isCurrent: () => boolean): Promise<Value | undefined> {
    const loadedAt = performance.now();
    try {
      const value = await Promise.resolve(id).then(this.#options.load);
      this.#isFailing = false;
      if (isCurrent()) this.#keep(id, { value, loadedAt, retryAt: 0 });
      return value;
    } catch (cause) {
      const known = this.#found.get(id);
      if (known !== undefined) known.retryAt = performance.now() + this.#options.freshMs;
      if (!this.#isFailing) this.#options.onFailure(cause);
      this.#isFailing = true;
      throw new PenstockError("overloaded", "Keys cannot be looked up at the moment; retry.", {
        retryAfterSeconds: 1,
        cause,
      });
    } finally {
      if (isCurrent()) this.#loads.delete(id);
    }
  }

  #keep(id: string, entry: Entry<Value>): void {
    const [into, outOf] = entry.value === undefined ? [this.#missing, this.#found] : [this.#found, this.#missing];
    outOf.delete(id);
    // Maps keep the order of insertion, so the first entry is the one that was loaded longest ago.
    into.delete(id);
    into.set(id, entry);
    if (into.size > this.#options.maxEntries) {
      for (const oldest of into.keys()) {
        into.delete(oldest);
        break;
      }
    }
  }
}
