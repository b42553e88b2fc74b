import { readdir, rm } from "node:fs/promises";
import { freeBytes, isOutOfSpace } from "../downloads/space.ts";
import type { Catalog, Known } from "./catalog.ts";
import { cacheFull } from "./full.ts";
import { isKey } from "./key.ts";
import { writeReservation } from "./part.ts";
import type { SharedDirectory } from "./shared.ts";
import { chargeOf, survey, type Part, type Survey } from "./survey.ts";

/** Bounds of what a cache may take of its disk. */
export interface RoomOptions {
  /** Bytes of all models together, those being fetched included; null for as much as the disk has. */
  readonly budgetBytes: number | null;
  /** Bytes of the disk that stay free. */
  readonly reserveFreeBytes: number;
  /** Entries that nobody used for longer are removed; null for never. */
  readonly ttlMs: number | null;
  /** Free bytes of the disk; for tests. */
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
}

/** A fetch that knows how much is to come. */
export interface Wish {
  readonly key: string;
  readonly bytes: number;
  /** Whether others may be evicted for it. */
  readonly mayEvict: boolean;
  /** Now, in the cache's time. */
  readonly nowMs: number;
}

/** Unfinished fetches that nobody came back for. */
const forgottenMs = 24 * 3_600_000;

interface Victim {
  readonly key: string;
  readonly bytes: number;
  readonly path: string;
}

/** Room on the cache's disk: who takes how much, and who goes first. Its methods run under the directory's lock. */
export class Room {
  readonly #shared: SharedDirectory;
  readonly #catalog: Catalog;
  readonly #options: RoomOptions;

  constructor(shared: SharedDirectory, catalog: Catalog, options: RoomOptions) {
    this.#shared = shared;
    this.#catalog = catalog;
    this.#options = options;
  }

  /**
   * Claims room for a fetch before its bytes are written. What is missing is freed: unfinished fetches first, then the
   * entries that nobody used for longest; never what is pinned or in use, and nothing at all when it would not do.
   * Throws `cache_full`.
   */
  async reserve({ key, bytes, mayEvict, nowMs }: Wish): Promise<void> {
    const { parts } = await this.#expire(nowMs);
    const others = parts.filter((part) => part.key !== key);
    const ownBytes = parts.find((part) => part.key === key)?.diskBytes ?? 0;
    const budget = this.#options.budgetBytes;
    const overBudget = budget === null ? 0 : this.#charge(others) + bytes - budget;
    // What others have claimed and not yet written is still free on the disk.
    const promised = others.reduce((sum, part) => sum + chargeOf(part) - part.diskBytes, 0);
    const { freeBytes: measure = freeBytes, reserveFreeBytes } = this.#options;
    const free = await measure(this.#shared.layout.root);
    const overDisk = Math.max(0, bytes - ownBytes) + reserveFreeBytes + promised - free;
    const missing = Math.max(overBudget, overDisk);
    if (missing > 0) {
      const freed = mayEvict && (await this.#evict(missing, { parts: others, orNothing: true })) > 0;
      if (!freed) {
        const disk = { freeBytes: free, reserveFreeBytes };
        throw cacheFull({
          bytes,
          budgetBytes: overBudget >= overDisk ? budget : null,
          ...disk,
          ...this.#takers(others),
        });
      }
    }
    await writeReservation(this.#shared.layout, key, { bytes, sinceMs: nowMs });
  }

  /** Frees up to so many bytes, oldest first, for a fetch that met a full disk. Answers how many it freed. */
  async evict(key: string, bytes: number): Promise<number> {
    const { parts } = await survey(this.#shared, this.#catalog);
    return this.#evict(bytes, { parts: parts.filter((part) => part.key !== key), orNothing: false });
  }

  /** Removes what is over its time and, as far as it can, what is over the budget. Answers what else lies there. */
  async sweep(nowMs: number): Promise<Survey> {
    const found = await this.#expire(nowMs);
    const { budgetBytes } = this.#options;
    const excess = budgetBytes === null ? 0 : this.#charge(found.parts) - budgetBytes;
    if (excess > 0) await this.#evict(excess, { parts: found.parts, orNothing: false });
    await this.#clearLocks();
    return found;
  }

  /** Removes an entry and what is left of its fetches. Answers false when it is in use or being fetched. */
  async remove(key: string): Promise<boolean> {
    using lock = this.#shared.tryLock(key, "remove");
    if (lock === undefined) return false;
    const { layout } = this.#shared;
    for (const path of [layout.entry(key), layout.part(key)]) await this.#delete({ key, path });
    return true;
  }

  #charge(parts: readonly Part[]): number {
    return this.#catalog.sizeBytes + parts.reduce((sum, part) => sum + chargeOf(part), 0);
  }

  /** Removes entries that nobody used for too long, and fetches that nobody came back for. Answers what is left. */
  async #expire(nowMs: number): Promise<Survey> {
    const { ttlMs } = this.#options;
    const found = await survey(this.#shared, this.#catalog);
    const parts: Part[] = [];
    for (const part of found.parts) {
      if (!part.isLive && part.sinceMs === undefined) await this.#date(part, nowMs);
      const isForgotten = !part.isLive && part.sinceMs !== undefined && nowMs - part.sinceMs > forgottenMs;
      if (!isForgotten || !(await this.#tryDelete(this.#part(part)))) parts.push(part);
    }
    if (ttlMs === null) return { ...found, parts };
    for (const entry of this.#evictable()) {
      if (nowMs - entry.lastUsedMs > ttlMs) await this.#tryDelete(this.#entry(entry));
    }
    return { ...found, parts };
  }

  /** A fetch that does not say when it began begins to age now; on a full disk, later. */
  async #date({ key, diskBytes }: Part, nowMs: number): Promise<void> {
    try {
      await writeReservation(this.#shared.layout, key, { bytes: diskBytes, sinceMs: nowMs });
    } catch (thrown) {
      if (!isOutOfSpace(thrown)) throw thrown;
    }
  }

  /** Unpinned entries, least recently used first. */
  #evictable(): Known[] {
    return this.#catalog.entries.filter(({ key }) => !this.#catalog.isPinned(key));
  }

  async #evict(wanted: number, { parts, orNothing }: { parts: readonly Part[]; orNothing: boolean }): Promise<number> {
    const dead = parts.filter(({ isLive }) => !isLive).toSorted((a, b) => (a.sinceMs ?? 0) - (b.sinceMs ?? 0));
    using locks = new DisposableStack();
    const chosen: Victim[] = [];
    let freed = 0;
    for (const victim of [...dead.map((part) => this.#part(part)), ...this.#evictable().map((e) => this.#entry(e))]) {
      if (freed >= wanted) break;
      const lock = this.#shared.tryLock(victim.key, "remove");
      if (lock === undefined) continue;
      locks.use(lock);
      chosen.push(victim);
      freed += victim.bytes;
    }
    if (orNothing && freed < wanted) return 0;
    for (const victim of chosen) await this.#delete(victim);
    return freed;
  }

  async #tryDelete(victim: Victim): Promise<boolean> {
    using lock = this.#shared.tryLock(victim.key, "remove");
    if (lock === undefined) return false;
    await this.#delete(victim);
    return true;
  }

  /** Call it with the entry's lock for removal. */
  async #delete({ key, path }: { key: string; path: string }): Promise<void> {
    const { layout } = this.#shared;
    await layout.delete(path, key);
    if (path === layout.entry(key)) this.#catalog.delete(key);
  }

  #entry({ key, sizeBytes }: Known): Victim {
    return { key, bytes: sizeBytes, path: this.#shared.layout.entry(key) };
  }

  #part({ key, diskBytes }: Part): Victim {
    return { key, bytes: diskBytes, path: this.#shared.layout.part(key) };
  }

  /** Who takes the room that could not be freed. */
  #takers(others: readonly Part[]): { pinnedBytes: number; inUseBytes: number; fetchingBytes: number } {
    let [pinnedBytes, inUseBytes] = [0, 0];
    for (const { key, sizeBytes } of this.#catalog.entries) {
      using free = this.#shared.tryLock(key, "remove");
      if (this.#catalog.isPinned(key)) pinnedBytes += sizeBytes;
      else if (free === undefined) inUseBytes += sizeBytes;
    }
    const fetching = others.filter(({ isLive }) => isLive);
    return { pinnedBytes, inUseBytes, fetchingBytes: fetching.reduce((sum, part) => sum + chargeOf(part), 0) };
  }

  /** Lock files of models that are not here any more. */
  async #clearLocks(): Promise<void> {
    const { layout } = this.#shared;
    const scan = await layout.scan();
    const present = new Set([...scan.entries, ...scan.parts]);
    for (const key of (await readdir(layout.locks)).filter((name) => isKey(name) && !present.has(name))) {
      using lock = this.#shared.tryLock(key, "remove");
      if (lock !== undefined) await rm(layout.lock(key), { force: true });
    }
  }
}
