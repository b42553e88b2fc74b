import { mkdir, readdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { PenstockError } from "../../contracts/errors.ts";
import type { DownloadLimits } from "../downloads/download.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import { diskFull, freeBytes, isOutOfSpace } from "../downloads/space.ts";
import type { SourceOptions } from "../sources/source.ts";
import { checkEntry } from "./check.ts";
import { fetchEntry, isOutdated } from "./fetch.ts";
import { Flight } from "./flight.ts";
import { isKey, keyOf, type CachedSpec } from "./key.ts";
import { filesFolder, readManifest, sizeOf, writeManifest, type Manifest } from "./manifest.ts";
import { clearLeftovers, removeDirectory } from "./staging.ts";

/** Bounds of a cache's downloads. */
export interface ModelCacheOptions {
  readonly limits?: Partial<DownloadLimits> | undefined;
  /** Free bytes of the disk; for tests. */
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
}

/** One who waits for a model. */
export interface EnsureOptions {
  /** At most about ten calls a second. */
  readonly onProgress?: ((progress: DownloadProgress) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** A model on local disk. */
export interface CachedModel {
  /** Folder of the model's files. */
  readonly directory: string;
  /** The `.gguf`, the first shard of a split one, or the folder: what an engine is given. */
  readonly entryPath: string;
  readonly sizeBytes: number;
  /** Whether nothing had to be fetched. */
  readonly fromCache: boolean;
}

/** A line of `list()`. */
export interface CacheEntry {
  readonly key: string;
  /** URI without credentials. */
  readonly source: string;
  readonly sizeBytes: number;
  readonly lastUsedAt: Date;
}

/**
 * Models on one directory. An entry is a folder `<slug>-<hash>` with `files/` and `manifest.json`, published by one rename.
 * Several processes may share the directory. What does not carry a name of this cache is left alone.
 */
export class ModelCache {
  readonly #root: string;
  readonly #sources: SourceOptions;
  readonly #options: ModelCacheOptions;
  readonly #flights = new Map<string, Flight<DownloadProgress, CachedModel>>();
  readonly #entries = new Map<string, CacheEntry>();

  private constructor(root: string, { sources, ...options }: ModelCacheOptions & { sources: SourceOptions }) {
    this.#root = root;
    this.#sources = sources;
    this.#options = options;
  }

  /**
   * Opens a cache on a directory, which is made when it is missing: clears what dead processes left and reads which
   * models are there. `sources` has the credentials and endpoints of the stores.
   */
  static async open(
    directory: string,
    sources: SourceOptions = {},
    options: ModelCacheOptions = {},
  ): Promise<ModelCache> {
    const root = resolve(directory);
    await mkdir(root, { recursive: true });
    await clearLeftovers(root, Date.now());
    const cache = new ModelCache(root, { ...options, sources });
    for (const entry of await readdir(root, { withFileTypes: true })) {
      if (!entry.isDirectory() || !isKey(entry.name)) continue;
      const manifest = await readManifest(join(root, entry.name));
      if (manifest !== undefined) cache.#note(entry.name, manifest);
    }
    return cache;
  }

  /** All models that are complete on disk. */
  list(): CacheEntry[] {
    return [...this.#entries.values()];
  }

  /** Bytes of all models that are complete on disk. */
  get sizeBytes(): number {
    return this.list().reduce((sum, entry) => sum + entry.sizeBytes, 0);
  }

  /**
   * A model's verified files, fetched unless they are there. However many ask, one download runs per model; one that
   * leaves by its signal does not end it for the others. An entry that fails its check is deleted and fetched once more.
   * Throws `source_not_found`, `source_denied`, `source_failed`, `checksum_mismatch`, `model_file_invalid`, `disk_full`,
   * `invalid_config`, or the signal's reason.
   */
  async ensure(spec: CachedSpec, options: EnsureOptions = {}): Promise<CachedModel> {
    const { onProgress = () => undefined, signal = new AbortController().signal } = options;
    signal.throwIfAborted();
    const key = keyOf(spec);
    for (;;) {
      const flight = this.#flights.get(key) ?? this.#start(key, spec);
      if (!flight.isEnding) return flight.join(onProgress, signal);
      await flight.ended();
    }
  }

  /** Deletes a model from disk. Throws `model_in_use` while it is being fetched. */
  async remove(spec: CachedSpec): Promise<void> {
    await this.removeKey(keyOf(spec));
  }

  /** Deletes an entry of `list()`. Throws `model_in_use` while it is being fetched. */
  async removeKey(key: string): Promise<void> {
    if (!isKey(key)) throw new PenstockError("invalid_value", "This is not the key of a cached model.");
    if (this.#flights.has(key)) {
      throw new PenstockError("model_in_use", "The model is being fetched; cancel that first.", {
        retryAfterSeconds: 5,
      });
    }
    this.#entries.delete(key);
    await removeDirectory(this.#root, key);
  }

  #start(key: string, spec: CachedSpec): Flight<DownloadProgress, CachedModel> {
    const flight = new Flight<DownloadProgress, CachedModel>((onProgress, signal) =>
      this.#ensure(key, { spec, onProgress, signal }).finally(() => this.#flights.delete(key)),
    );
    this.#flights.set(key, flight);
    return flight;
  }

  async #ensure(key: string, work: Work): Promise<CachedModel> {
    const cached = await this.#current(key, work);
    if (cached !== undefined) return this.#use(key, { manifest: cached, fromCache: true });
    await this.#fetch(key, work);
    const fetched = await this.#checked(key, work);
    if (fetched !== undefined) return this.#use(key, { manifest: fetched, fromCache: false });
    throw new PenstockError(
      "source_failed",
      "The model vanished from the cache's disk while it was loaded; try again.",
    );
  }

  async #fetch(key: string, work: Work): Promise<void> {
    const root = this.#root;
    try {
      await fetchEntry(work.spec, { root, key, sources: this.#sources, ...this.#options, ...work });
    } catch (thrown) {
      if (!isOutOfSpace(thrown)) throw thrown;
      // So full that not even the folder for a download fits.
      throw diskFull({ free: await freeBytes(root), cause: thrown });
    }
  }

  /** The manifest of an entry that passes its check and is what its source has now. */
  async #current(key: string, work: Work): Promise<Manifest | undefined> {
    const manifest = await this.#checked(key, work);
    if (manifest === undefined || !(await isOutdated(work.spec, manifest, { sources: this.#sources, ...work }))) {
      return manifest;
    }
    this.#entries.delete(key);
    await removeDirectory(this.#root, key);
    return undefined;
  }

  /** The manifest of an entry that passes its check. One that fails is deleted. */
  async #checked(key: string, { onProgress, signal }: Work): Promise<Manifest | undefined> {
    const directory = join(this.#root, key);
    const found = await readManifest(directory);
    const manifest = found && (await checkEntry(directory, found, { onProgress, signal }));
    if (manifest !== undefined) return manifest;
    this.#entries.delete(key);
    await removeDirectory(this.#root, key);
    return undefined;
  }

  async #use(key: string, { manifest, fromCache }: { manifest: Manifest; fromCache: boolean }): Promise<CachedModel> {
    const used = { ...manifest, lastUsedAt: new Date().toISOString() };
    const entryDirectory = join(this.#root, key);
    await writeManifest(entryDirectory, used);
    this.#note(key, used);
    const directory = join(entryDirectory, filesFolder);
    return { directory, entryPath: join(directory, used.entry), sizeBytes: sizeOf(used), fromCache };
  }

  #note(key: string, manifest: Manifest): void {
    const { source, lastUsedAt } = manifest;
    this.#entries.set(key, { key, source, sizeBytes: sizeOf(manifest), lastUsedAt: new Date(lastUsedAt) });
  }
}

interface Work {
  readonly spec: CachedSpec;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
}
