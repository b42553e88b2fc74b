import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { EnsureOptions, ModelCache } from "../../runtime/agent/cache/cache.ts";
import { diskUsage } from "../../runtime/agent/cache/files.ts";
import type { CachedSpec } from "../../runtime/agent/cache/key.ts";
import { patternedBytes, RangeServer } from "../fakes/range-server.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";

/** What the tests of the cache call a block: models are so many of them, so that sizes on disk are what they seem. */
export const block = 4096;

/** Models on this machine and on a server, beside an empty folder for a cache. */
export class Models implements AsyncDisposable {
  /** Where the cache goes. */
  readonly root: string;
  readonly server: RangeServer;
  readonly #folder: TemporaryFolder;

  private constructor(folder: TemporaryFolder, server: RangeServer) {
    this.root = join(folder.path, "cache");
    this.server = server;
    this.#folder = folder;
  }

  static async make(): Promise<Models> {
    return new Models(await temporaryFolder(), await RangeServer.start());
  }

  /** Makes a model of so many blocks, unless it is there. */
  async put(name: string, blocks: number): Promise<CachedSpec> {
    const path = join(this.#folder.path, name);
    const sizeBytes = blocks * block;
    const isThere = (await stat(path).catch(() => undefined))?.size === sizeBytes;
    if (!isThere) await writeFile(path, patternedBytes(sizeBytes, name.length));
    return { id: name, source: `file://${path}`, format: "engine" };
  }

  /** Bytes of models and parts of models in the cache's folder, as the disk counts them, without the small files. */
  async bytesOnDisk(): Promise<number> {
    let sum = 0;
    for (const name of await readdir(this.root)) {
      if (name === ".penstock") continue;
      for (const inner of await readdir(join(this.root, name)).catch(() => [])) {
        if (!inner.endsWith(".json")) sum += await diskUsage(join(this.root, name, inner));
      }
    }
    return sum;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.server[Symbol.asyncDispose]();
    await this.#folder[Symbol.asyncDispose]();
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

/** A model of so many blocks on a server, whose fetch can be held. */
export function remote(server: RangeServer, name: string, blocks: number): CachedSpec {
  server.put(`/${name}`, patternedBytes(blocks * block));
  return { id: name, source: `${server.url}/${name}`, format: "engine" };
}

/** Lets a model's ranges after the first few hang, from when `reached` is fulfilled until `letGo`. */
export function hang(server: RangeServer, spec: CachedSpec, ranges = 0): { reached: Promise<void>; letGo: () => void } {
  const { promise: reached, resolve: reach } = Promise.withResolvers<void>();
  const { promise: until, resolve: open } = Promise.withResolvers<void>();
  let isOpen = false;
  let seen = 0;
  server.faults.push(({ path, range }) => {
    if (isOpen || range === null || range[1] <= 1 || !spec.source.endsWith(path)) return undefined;
    seen += 1;
    if (seen <= ranges) return undefined;
    reach();
    return { kind: "hold", until };
  });
  const letGo = (): void => {
    isOpen = true;
    open();
  };
  return { reached, letGo };
}
