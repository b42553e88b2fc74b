import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { EnsureOptions, ModelCache } from "../../runtime/agent/cache/cache.ts";
import { diskUsage } from "../../runtime/agent/cache/files.ts";
import type { CachedSpec } from "../../runtime/agent/cache/key.ts";
import { patternedBytes } from "../fakes/range-server.ts";
import { temporaryFolder } from "../support/folders.ts";

/** What the tests of the cache call a block: models are so many of them, so that sizes on disk are what they seem. */
export const block = 4096;

/** Models on this machine, beside an empty folder for a cache. */
export class Models implements AsyncDisposable {
  /** Where the cache goes. */
  readonly root: string;
  readonly #folder: string;
  readonly #dispose: () => Promise<void>;

  private constructor(folder: string, dispose: () => Promise<void>) {
    this.#folder = folder;
    this.root = join(folder, "cache");
    this.#dispose = dispose;
  }

  static async make(): Promise<Models> {
    const folder = await temporaryFolder();
    return new Models(folder.path, async () => folder[Symbol.asyncDispose]());
  }

  /** Makes a model of so many blocks. */
  async put(name: string, blocks: number): Promise<CachedSpec> {
    const path = join(this.#folder, name);
    await writeFile(path, patternedBytes(blocks * block, name.length));
    return { id: name, source: `file://${path}`, format: "engine" };
  }

  async drop(name: string): Promise<void> {
    await rm(join(this.#folder, name));
  }

  /** Bytes of models and parts of models in the cache's folder, as the disk counts them, without the small files. */
  async bytesOnDisk(): Promise<number> {
    let sum = 0;
    for (const name of await readdir(this.root)) {
      if (name === ".penstock") continue;
      for (const inner of await readdir(join(this.root, name))) {
        if (!inner.endsWith(".json")) sum += await diskUsage(join(this.root, name, inner));
      }
    }
    return sum;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose();
  }
}

/** Asks for a model, looks whether its bytes are there, and lets go of it. */
export async function touch(cache: ModelCache, spec: CachedSpec, options: EnsureOptions = {}): Promise<boolean> {
  using model = await cache.ensure(spec, options);
  const [name = ""] = await readdir(model.directory);
  if ((await readFile(join(model.directory, name))).length !== model.sizeBytes) throw new Error("a file is cut");
  return model.fromCache;
}

/** Ids of the models in a cache, in order. */
export function idsIn(cache: ModelCache): string[] {
  return cache
    .list()
    .flatMap(({ modelIds }) => modelIds)
    .toSorted();
}
