import { blockTokens, mix32 } from "./prefix-hash.ts";
import { ReplicaHistory } from "./replica-history.ts";

/** Bounds of the index. */
export interface PrefixIndexOptions {
  /** Entries in all; rounded up to a power of two. An entry is one block on one replica and takes 10 bytes. */
  readonly maxEntries?: number;
  /** After that time without use an entry counts as gone. */
  readonly timeToLiveMs?: number;
}

/** Entries that share a place: the oldest of them makes room. */
const ways = 8;
/** 2M entries of 10 bytes are 20 MB: 1,000 replicas with 2,000 blocks each, or 60 replicas of 440k KV tokens with all. */
const defaultEntries = 2 ** 21;
/** Longer than 99 % of the gaps between two uses in a conversation trace (1,578 s, Mooncake 2025). */
const defaultTimeToLiveMs = 30 * 60_000;
const lastStamp = 2 ** 32 - 1;

/**
 * Which replica probably holds which block of a prompt. It learns from what was routed, before the engine has prefilled
 * it: a request that queues behind the one that brings its prefix will find it. Never asks an engine.
 *
 * A fixed table of 8 entries a place (the oldest leaves), so memory never grows. Each replica forgets its least recently
 * used blocks at its own capacity, all of a request at once, and everything at once when it restarts.
 */
export class PrefixIndex {
  readonly #mask: number;
  readonly #timeToLiveMs: number;
  readonly #hashes: Uint32Array;
  readonly #owners: Uint16Array;
  /** Request that used the entry last; 0: empty. */
  readonly #stamps: Uint32Array;
  readonly #replicas: (ReplicaHistory | undefined)[] = [];
  #stamp = 0;

  constructor({ maxEntries = defaultEntries, timeToLiveMs = defaultTimeToLiveMs }: PrefixIndexOptions = {}) {
    const places = 2 ** Math.ceil(Math.log2(Math.max(1, maxEntries / ways)));
    this.#mask = places - 1;
    this.#timeToLiveMs = timeToLiveMs;
    this.#hashes = new Uint32Array(places * ways);
    this.#owners = new Uint16Array(places * ways);
    this.#stamps = new Uint32Array(places * ways);
  }

  /** Bytes of the table. */
  get sizeBytes(): number {
    return this.#hashes.byteLength + this.#owners.byteLength + this.#stamps.byteLength;
  }

  /** A replica is there, empty; `owner` is its number, 0 to 65,535. `kvTokens` bounds what it is thought to hold. */
  add(owner: number, kvTokens: number): void {
    this.#replicas[owner] = new ReplicaHistory(Math.max(1, Math.floor(kvTokens / blockTokens)), this.#stamp);
  }

  /** A replica is gone, and its number may be given to another. */
  remove(owner: number): void {
    this.#replicas[owner] = undefined;
  }

  /** A replica restarted or slept: it holds nothing. */
  forget(owner: number): void {
    this.#replicas[owner]?.clear(this.#stamp);
  }

  /** Filled part of what a replica can hold, 0 to 1. */
  fill(owner: number): number {
    return this.#replicas[owner]?.fill ?? 0;
  }

  /** Blocks at the beginning of a prompt that a replica holds. */
  match(prefix: Uint32Array, owner: number, nowMs: number): number {
    const history = this.#replicas[owner];
    if (history === undefined) return 0;
    history.expire(nowMs - this.#timeToLiveMs);
    // What a replica holds of a prompt is a beginning of it, so its end can be found by halving. Doubling first keeps
    // the common case, one or no block, at one or two probes.
    let known = 0;
    let next = 1;
    while (next <= prefix.length && this.#holds(prefix[next - 1] ?? 0, owner, history)) {
      known = next;
      next *= 2;
    }
    let unknown = Math.min(next, prefix.length + 1);
    while (unknown - known > 1) {
      const middle = (known + unknown) >>> 1;
      if (this.#holds(prefix[middle - 1] ?? 0, owner, history)) known = middle;
      else unknown = middle;
    }
    return known;
  }

  /**
   * The prompt goes to a replica: its blocks are there from now on. Times are of one clock, never going back.
   * Answers what `revoke` needs.
   */
  record(prefix: Uint32Array, owner: number, nowMs: number): number {
    const history = this.#replicas[owner];
    if (history === undefined || prefix.length === 0) return 0;
    if (this.#stamp === lastStamp) this.#forgetAll();
    this.#stamp += 1;
    history.begin(this.#stamp, nowMs);
    for (const hash of prefix) this.#use(hash, owner, history);
    history.fit();
    return this.#stamp;
  }

  /** The prompt of a `record` was never prefilled: takes out what nobody has used since. */
  revoke(prefix: Uint32Array, owner: number, record: number): void {
    const history = this.#replicas[owner];
    if (history === undefined || record === 0) return;
    for (const hash of prefix) {
      const entry = this.#find(hash, owner);
      if (entry === -1 || this.#stampOf(entry) !== record) continue;
      history.leave(record);
      this.#stamps[entry] = 0;
    }
  }

  #holds(hash: number, owner: number, history: ReplicaHistory): boolean {
    const entry = this.#find(hash, owner);
    return entry !== -1 && this.#stampOf(entry) > history.horizon;
  }

  #find(hash: number, owner: number): number {
    const first = this.#place(hash, owner);
    for (let entry = first; entry < first + ways; entry += 1) {
      if (this.#hashes[entry] === hash && this.#owners[entry] === owner && this.#stamps[entry] !== 0) return entry;
    }
    return -1;
  }

  #use(hash: number, owner: number, history: ReplicaHistory): void {
    let entry = this.#find(hash, owner);
    if (entry === -1) entry = this.#makeRoom(this.#place(hash, owner));
    else history.leave(this.#stampOf(entry));
    this.#hashes[entry] = hash;
    this.#owners[entry] = owner;
    this.#stamps[entry] = this.#stamp;
    history.enter();
  }

  /** A free entry of a place, or the oldest, whose owner is told. */
  #makeRoom(first: number): number {
    let oldest = first;
    let oldestStamp = Infinity;
    for (let entry = first; entry < first + ways; entry += 1) {
      const stamp = this.#stampOf(entry);
      const horizon = this.#replicas[this.#owners[entry] ?? 0]?.horizon ?? lastStamp;
      if (stamp <= horizon) return entry;
      if (stamp >= oldestStamp) continue;
      oldest = entry;
      oldestStamp = stamp;
    }
    this.#replicas[this.#owners[oldest] ?? 0]?.leave(oldestStamp);
    return oldest;
  }

  #forgetAll(): void {
    this.#stamp = 0;
    this.#stamps.fill(0);
    for (const history of this.#replicas) history?.clear(0);
  }

  #place(hash: number, owner: number): number {
    return (mix32(hash ^ Math.imul(owner + 1, 0x9e3779b1)) & this.#mask) * ways;
  }

  #stampOf(entry: number): number {
    return this.#stamps[entry] ?? 0;
  }
}
