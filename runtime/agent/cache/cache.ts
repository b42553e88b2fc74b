import { rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PenstockError } from "../../contracts/errors.ts";
import type { DownloadLimits } from "../downloads/download.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import type { SourceOptions } from "../sources/source.ts";
import { Catalog } from "./catalog.ts";
import { CacheClock } from "./clock.ts";
import { Flights, type Asked } from "./flights.ts";
import { orDiskFull } from "./full.ts";
import { Holds, type Hold } from "./holds.ts";
import { isKey, keyOf, type CachedSpec } from "./key.ts";
import { filesFolder } from "./layout.ts";
import { sizeOf } from "./manifest.ts";
import type { Inside, Obtained } from "./obtain.ts";
import { prefetchAll, type PrefetchOptions, type PrefetchResult } from "./prefetch.ts";
import { Priority } from "./priority.ts";
import { Room, type RoomOptions } from "./room.ts";
import { SharedDirectory } from "./shared.ts";
import { survey } from "./survey.ts";
import { Usage } from "./usage.ts";

/** Bounds of a cache and of its downloads. */
export interface ModelCacheOptions extends Partial<RoomOptions> {
  readonly limits?: Partial<DownloadLimits> | undefined;
  /** How often the cache looks for what is over its time, and for what other agents did; null for never. */
  readonly sweepEveryMs?: number | null | undefined;
  /** The system clock; for tests. */
  readonly now?: (() => number) | undefined;
}

/** One who waits for a model. */
export interface EnsureOptions {
  /** At most about ten calls a second. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A model on local disk. Until it is released nobody removes it, in this process or another. */
export interface CachedModel extends Disposable {
  /** Folder of the model's files. */
  readonly directory: string;
  /** The `.gguf`, the first shard of a split one, or the folder: what an engine is given. */
  readonly entryPath: string;
  readonly sizeBytes: number;
  /** Whether nothing had to be fetched. */
  readonly fromCache: boolean;
  /** Ends this use. A second call does nothing. */
  release(): void;
}

/** A line of `list()`. */
export interface CacheEntry {
  readonly key: string;
  /** URI without credentials. */
  readonly source: string;
  readonly sizeBytes: number;
  /** About when: the start of the last use, or a sweep during it. */
  readonly lastUsedAt: Date;
  readonly pinned: boolean;
  /** By this process; of others one only hears when the entry is to be removed. */
  readonly inUse: boolean;
  /** Models that this entry serves, by the last spec of each, in this run or an earlier one. */
  readonly modelIds: readonly string[];
}

/** Room for logs and manifests of whoever else writes to the disk. */
const defaultReserveFreeBytes = 64 * 2 ** 20;
const defaultSweepEveryMs = 60_000;

/**
 * Models on one directory, within a budget of bytes. An entry is a folder `<slug>-<hash>` with `files/` and
 * `manifest.json`, published by one rename. Several processes may share the directory (`shared.ts`). What does not carry a
 * name of this cache is left alone.
 */
export class ModelCache implements AsyncDisposable {
  readonly #shared: SharedDirectory;
  readonly #catalog: Catalog;
  readonly #clock: CacheClock;
  readonly #room: Room;
  readonly #inside: Inside;
  readonly #priority = new Priority();
  readonly #holds = new Holds();
  readonly #flights: Flights;
  #foreign: readonly string[] = [];
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> | undefined;

  private constructor(shared: SharedDirectory, sources: SourceOptions, options: ModelCacheOptions) {
    const { limits, freeBytes, now = Date.now } = options;
    const { budgetBytes = null, reserveFreeBytes = defaultReserveFreeBytes, ttlMs = null } = options;
    this.#shared = shared;
    this.#catalog = new Catalog(shared.layout);
    this.#clock = new CacheClock(shared.layout.clock, now);
    this.#room = new Room(shared, this.#catalog, { budgetBytes, reserveFreeBytes, ttlMs, freeBytes });
    const usage = new Usage(shared, this.#catalog, this.#clock);
    this.#inside = { shared, room: this.#room, usage, priority: this.#priority, sources, limits, freeBytes };
    this.#flights = new Flights(this.#inside);
  }

  /**
   * Opens a cache on a directory, which is made when it is missing: reads which models are there, clears what dead
   * processes left, and sweeps, then and from time to time. `sources` has the credentials and endpoints of the stores.
   * Throws `disk_full` where not even its locks fit.
   */
  static async open(
    directory: string,
    sources: SourceOptions = {},
    options: ModelCacheOptions = {},
  ): Promise<ModelCache> {
    const shared = new SharedDirectory(resolve(directory));
    const cache = new ModelCache(shared, sources, options);
    await orDiskFull(shared.layout.root, async () => {
      await shared.layout.make();
      // The clock may need to know what is there.
      await shared.locked(() => survey(shared, cache.#catalog));
      await cache.sweep();
    });
    const { sweepEveryMs = defaultSweepEveryMs } = options;
    if (sweepEveryMs !== null) {
      cache.#timer = setInterval(() => {
        cache.#sweeping ??= cache
          .sweep()
          // A disk that fails shows where somebody waits for a model; the next sweep tries again.
          .catch(() => undefined)
          .finally(() => (cache.#sweeping = undefined));
      }, sweepEveryMs).unref();
    }
    return cache;
  }

  /** All models that are complete on disk, as of the last look, least recently used first. No I/O. */
  list(): CacheEntry[] {
    return this.#catalog.entries.map(({ key, source, sizeBytes, lastUsedMs, modelIds }) => ({
      key,
      source,
      sizeBytes,
      lastUsedAt: this.#clock.toDate(lastUsedMs),
      pinned: this.#catalog.isPinned(key),
      inUse: this.#holds.isGiven(key),
      modelIds,
    }));
  }

  /** Whether a model is complete on disk, as of the last look. No I/O. */
  has(spec: CachedSpec): boolean {
    return this.#catalog.get(keyOf(spec)) !== undefined;
  }

  /** Bytes of all models that are complete on disk. */
  get sizeBytes(): number {
    return this.#catalog.sizeBytes;
  }

  /** Another number whenever `list()` has other entries, sizes, model ids or pins. */
  get revision(): number {
    return this.#catalog.revision;
  }

  /** The first names in the directory that no cache made. They are left alone, and the budget ignores them. */
  get foreign(): readonly string[] {
    return this.#foreign;
  }

  /**
   * A model's verified files, in use until released, fetched unless they are there. However many ask, one download runs
   * per model, in whichever process; one that leaves by its signal does not end it for the others. An entry that fails its
   * check is deleted and fetched once more.
   * Throws `source_not_found`, `source_denied`, `source_failed`, `checksum_mismatch`, `model_file_invalid`, `cache_full`,
   * `disk_full`, `model_in_use`, `invalid_config`, or the signal's reason.
   */
  async ensure(spec: CachedSpec, options: EnsureOptions = {}): Promise<CachedModel> {
    const { onProgress = () => undefined, signal = new AbortController().signal } = options;
    return this.#ensure(spec, { onProgress, signal, isBackground: false });
  }

  /**
   * Fetches models that may be asked for soon, in order, one at a time unless told otherwise. Fetches that requests wait
   * for go first; nothing is evicted for a prefetch. Never throws; a signal ends it.
   */
  async prefetch<Spec extends CachedSpec>(
    specs: readonly Spec[],
    options: PrefetchOptions<Spec> = {},
  ): Promise<PrefetchResult<Spec>[]> {
    const fetch = async (spec: Spec, signal: AbortSignal): Promise<"cached" | "fetched"> => {
      const onProgress = (progress: DownloadProgress): void => options.onProgress?.(spec, progress);
      const one = (both: AbortSignal): Promise<CachedModel> =>
        this.#ensure(spec, { onProgress, signal: both, isBackground: true });
      using model = await this.#priority.background(one, signal);
      return model.fromCache ? "cached" : "fetched";
    };
    return prefetchAll(specs, fetch, options);
  }

  /** Keeps a model from being evicted, also when it is only fetched later, until `unpin`; restarts do not change that. */
  async pin(spec: CachedSpec): Promise<void> {
    await this.#changePins(() => writeFile(this.#shared.layout.pin(keyOf(spec)), ""));
  }

  /** Ends a pin, if there is one. */
  async unpin(spec: CachedSpec): Promise<void> {
    await this.#changePins(() => rm(this.#shared.layout.pin(keyOf(spec)), { force: true }));
  }

  /**
   * Deletes a model from disk, and what is left of its downloads. A pin stays.
   * Throws `model_in_use` while it is in use or being fetched, here or in another process.
   */
  async remove(spec: CachedSpec): Promise<void> {
    await this.removeKey(keyOf(spec));
  }

  /** Deletes an entry of `list()`. Throws `model_in_use` like `remove`, and `invalid_value`. */
  async removeKey(key: string): Promise<void> {
    if (!isKey(key)) throw new PenstockError("invalid_value", "This is not the key of a cached model.");
    if (await this.#shared.locked(() => this.#room.remove(key))) return;
    throw new PenstockError("model_in_use", "The model is in use or being fetched; unload it or cancel that first.", {
      retryAfterSeconds: 5,
    });
  }

  /** Removes what nobody used for longer than `ttlMs` and what is over the budget, and sees what other agents did. */
  async sweep(): Promise<void> {
    const { usage } = this.#inside;
    await this.#shared.locked(async () => {
      // What is in use now was used last; among itself it keeps its order.
      for (const { key } of this.#catalog.entries) if (this.#holds.isGiven(key)) await usage.touch(key);
      const { foreign } = await this.#room.sweep(await usage.now());
      this.#foreign = foreign.slice(0, 20);
    });
  }

  /** Ends the sweeps and every use of this process. Fetches end by their own signals. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#holds.releaseAll();
    await this.#sweeping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #changePins(change: () => Promise<void>): Promise<void> {
    await this.#shared.locked(async () => {
      await change();
      await this.#catalog.refreshPins();
    });
  }

  async #ensure(spec: CachedSpec, asked: Asked): Promise<CachedModel> {
    asked.signal.throwIfAborted();
    const key = keyOf(spec);
    const hold = this.#holds.enter(key);
    let model: CachedModel;
    try {
      model = this.#give({ key, hold }, await this.#flights.join({ key, spec, hold }, asked));
    } catch (thrown) {
      this.#holds.leave(key, hold);
      throw thrown;
    }
    try {
      await this.#noteId(key, spec);
      return model;
    } catch (thrown) {
      model.release();
      throw thrown;
    }
  }

  /** One who joined another's flight may have an id of its own. */
  async #noteId(key: string, spec: CachedSpec): Promise<void> {
    if (spec.id === undefined || this.#catalog.get(key)?.modelIds.includes(spec.id) !== false) return;
    await this.#shared.locked(() => this.#inside.usage.touch(key, spec));
  }

  #give({ key, hold }: { key: string; hold: Hold }, { manifest, fromCache }: Obtained): CachedModel {
    const directory = join(this.#shared.layout.entry(key), filesFolder);
    const release = this.#holds.give(key, hold);
    return {
      directory,
      entryPath: join(directory, manifest.entry),
      sizeBytes: sizeOf(manifest),
      fromCache,
      release,
      [Symbol.dispose]: release,
    };
  }
}
