import { isOutOfSpace } from "../downloads/space.ts";
import type { Catalog } from "./catalog.ts";
import type { CacheClock } from "./clock.ts";
import type { Fetched } from "./fetch.ts";
import type { Hold } from "./holds.ts";
import type { CachedSpec } from "./key.ts";
import { maxModelIds, readManifest, writeManifest, type Manifest } from "./manifest.ts";
import { promote } from "./part.ts";
import type { SharedDirectory } from "./shared.ts";

/** Who used what, and when. Its methods run under the directory's lock. */
export class Usage {
  readonly #shared: SharedDirectory;
  readonly #catalog: Catalog;
  readonly #clock: CacheClock;

  constructor(shared: SharedDirectory, catalog: Catalog, clock: CacheClock) {
    this.#shared = shared;
    this.#catalog = catalog;
    this.#clock = clock;
  }

  /** Now, in the cache's time. */
  async now(): Promise<number> {
    return this.#clock.tick(this.#catalog.newestMs);
  }

  /** Notes down that an entry is in use, if it is there. */
  async touch(key: string, spec?: CachedSpec): Promise<void> {
    const manifest = await readManifest(this.#shared.layout.entry(key));
    if (manifest !== undefined) await this.note({ key, spec }, manifest);
  }

  /** Notes down a use of an entry, and what its check found. */
  async note({ key, spec }: { key: string; spec: CachedSpec | undefined }, checked: Manifest): Promise<Manifest> {
    // Another agent may have noted its own model since the check began.
    const recorded = (await readManifest(this.#shared.layout.entry(key))) ?? checked;
    const manifest = { ...checked, modelIds: withId(recorded.modelIds, spec?.id), lastUsedMs: await this.now() };
    await this.#save(key, manifest);
    await this.#takeId(key, spec?.id);
    return manifest;
  }

  /** Makes what was fetched an entry, visible at once and locked for use. Call it with the entry's lock for fetching. */
  async publish(
    { key, spec, hold }: { key: string; spec: CachedSpec; hold: Hold },
    fetched: Fetched,
  ): Promise<Manifest> {
    const { layout } = this.#shared;
    const manifest = { ...fetched, modelIds: withId([], spec.id), lastUsedMs: await this.now() };
    await writeManifest(layout.part(key), manifest, { sync: true });
    await promote(layout, key);
    hold.lock ??= this.#shared.tryLock(key, "use");
    await this.#catalog.note(key, manifest);
    await this.#takeId(key, spec.id);
    return manifest;
  }

  /** An id stands for one source at a time: entries that it asked for before do not serve it any more. */
  async #takeId(key: string, id: string | undefined): Promise<void> {
    if (id === undefined) return;
    for (const other of this.#catalog.entries.filter((entry) => entry.key !== key && entry.modelIds.includes(id))) {
      const manifest = await readManifest(this.#shared.layout.entry(other.key));
      if (manifest !== undefined) {
        await this.#save(other.key, { ...manifest, modelIds: manifest.modelIds.filter((one) => one !== id) });
      }
    }
  }

  /** On a full disk a change is only kept in mind. */
  async #save(key: string, manifest: Manifest): Promise<void> {
    try {
      await writeManifest(this.#shared.layout.entry(key), manifest);
    } catch (thrown) {
      if (!isOutOfSpace(thrown)) throw thrown;
    }
    await this.#catalog.note(key, manifest);
  }
}

function withId(ids: readonly string[], id: string | undefined): string[] {
  if (id === undefined || ids.includes(id)) return [...ids];
  return [...ids, id].slice(-maxModelIds);
}
