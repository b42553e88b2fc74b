import { safetensorsParts } from "../../support/safetensors-bytes.ts";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { ModelCache } from "../../../runtime/agent/cache/cache.ts";
import { download, type DownloadLimits } from "../../../runtime/agent/downloads/download.ts";
import { createSource } from "../../../runtime/agent/sources/index.ts";
import { patternedBytes } from "../../fakes/range-server.ts";
import { temporaryFolder } from "../../support/folders.ts";
import { gguf } from "../../support/gguf-bytes.ts";
import { proxy } from "../../support/servers/proxy.ts";
import type { Store } from "../sources.contract.ts";
import type { StoreServer } from "./servers.ts";

const MiB = 2 ** 20;
const bounds = { rangeBytes: 128 * 1024, connections: 4, attempts: 2, retryBaseMs: 1, retryMaxMs: 5 };
const model = gguf({ data: patternedBytes(4 * MiB) });

/** What the agent's cache must do with a model of any store. `folders` is why a store has none. */
export function ensureContract(server: () => StoreServer, { folders }: { folders?: string | undefined } = {}): void {
  describe.each([
    ["plain sockets", 0],
    ["its source's own client", Infinity],
  ])("by %s", (_, directFromBytes) => {
    waysContract(server, { folders, open: (store) => openCache(store, { ...bounds, directFromBytes }) });
  });

  it.skipIf(process.platform !== "linux")("has a plain request for a model, which the server takes", async () => {
    await using folder = await temporaryFolder();
    await using store = await server().open();
    await store.put("llama/m.gguf", model);
    const source = createSource(store.uri("llama/m.gguf"), store.options);
    const signal = new AbortController().signal;
    const fallbacks: string[] = [];
    await download({
      source,
      files: await source.list(signal),
      directory: join(folder.path, "out"),
      limits: { ...bounds, directFromBytes: 0 },
      onProgress: () => undefined,
      onFallback: (_, reason) => void fallbacks.push(reason),
      signal,
    });
    expect(fallbacks).toEqual([]);
    expect((await readFile(join(folder.path, "out/m.gguf"))).equals(model)).toBe(true);
  });
}

interface Way {
  readonly folders: string | undefined;
  readonly open: (store: Store) => Promise<StoreCache>;
}

function waysContract(server: () => StoreServer, { folders, open }: Way): void {
  it("fetches a model, and has it when the store refuses", async () => {
    await using cache = await open(await server().open());
    await cache.store.put("llama/m.gguf", model);
    const first = await cache.ensure("llama/m.gguf", "gguf");
    expect(first.fromCache).toBe(false);
    expect((await readFile(first.entryPath)).equals(model)).toBe(true);
    await cache.store.deny();
    expect(await cache.ensure("llama/m.gguf", "gguf")).toEqual({ ...first, fromCache: true });
  });

  it("fetches all shards of a model", async () => {
    await using cache = await open(await server().open());
    const shards = new Map(
      [1, 2, 3].map((n) => [`big-0000${n}-of-00003.gguf`, gguf({ data: patternedBytes(n * 400_000, n) })]),
    );
    for (const [name, body] of shards) await cache.store.put(`models/${name}`, body);
    const { directory, entryPath } = await cache.ensure("models/big-00001-of-00003.gguf", "gguf");
    expect(entryPath).toBe(join(directory, "big-00001-of-00003.gguf"));
    await expectFiles(directory, shards);
  });

  it("fetches a repository: weights in shards, their index, tokenizer and configuration", async (context) => {
    context.skip(folders !== undefined, folders);
    await using cache = await open(await server().open());
    const wanted = new Map([
      ["config.json", Buffer.from('{"model_type":"llama"}')],
      ["tokenizer.json", patternedBytes(300_000)],
      ["model.safetensors.index.json", Buffer.from('{"weight_map":{"a":"model-00001-of-00002.safetensors"}}')],
      ["model-00001-of-00002.safetensors", shard("a", MiB + 1)],
      ["model-00002-of-00002.safetensors", shard("b", 700_001)],
      ["original/empty.txt", Buffer.alloc(0)],
    ]);
    for (const [name, body] of wanted) await cache.store.put(`org/llama/${name}`, body);
    await cache.store.put("org/llama/pytorch_model.bin", Buffer.from("the same weights once more"));
    await cache.store.put("org/llama-70b/config.json", Buffer.from("a neighbour"));
    const first = await cache.ensure("org/llama", "safetensors");
    await expectFiles(first.directory, wanted);
    expect(await cache.ensure("org/llama", "safetensors")).toEqual({ ...first, fromCache: true });
  });

  it("asks only for what is missing after a download that was cut", async () => {
    await using way = await proxy(server().url);
    await using cache = await open(await server().open(way.url));
    await cache.store.put("m.gguf", model);
    way.cutAfter(model.length / 2);
    await expect(cache.ensure("m.gguf", "gguf")).rejects.toMatchObject({ code: "source_failed" });
    way.heal();
    const before = way.bytesReceived;
    const { entryPath } = await cache.ensure("m.gguf", "gguf");
    expect((await readFile(entryPath)).equals(model)).toBe(true);
    const received = way.bytesReceived - before;
    expect(received).toBeGreaterThan(model.length / 4);
    expect(received).toBeLessThan(model.length * 0.9);
  });

  it("says source_not_found and source_denied, and leaves nothing behind", async () => {
    await using cache = await open(await server().open());
    await expect(cache.ensure("absent/m.gguf", "gguf")).rejects.toMatchObject({ code: "source_not_found" });
    await cache.store.put("llama/m.gguf", model);
    await cache.store.deny();
    await expect(cache.ensure("llama/m.gguf", "gguf")).rejects.toMatchObject({ code: "source_denied" });
    expect((await readdir(cache.folder)).filter((name) => !name.startsWith("."))).toEqual([]);
  });
}

/** What the cache answered. */
interface Ensured {
  readonly directory: string;
  readonly entryPath: string;
  readonly sizeBytes: number;
  readonly fromCache: boolean;
}

/** A folder for a cache of its own in front of a store. */
interface StoreCache extends AsyncDisposable {
  readonly store: Store;
  readonly folder: string;
  /** As after a start of the agent: a cache that was just opened knows nothing that is not on disk. */
  ensure(path: string, format: "gguf" | "safetensors"): Promise<Ensured>;
}

async function openCache(store: Store, limits: Partial<DownloadLimits>): Promise<StoreCache> {
  const folder = await temporaryFolder();
  return {
    store,
    folder: folder.path,
    ensure: async (path, format) => {
      await using cache = await ModelCache.open(folder.path, store.options, { limits });
      using cached = await cache.ensure({ source: store.uri(path), format, sha256: undefined });
      const { directory, entryPath, sizeBytes, fromCache } = cached;
      return { directory, entryPath, sizeBytes, fromCache };
    },
    async [Symbol.asyncDispose]() {
      await store[Symbol.asyncDispose]();
      await folder[Symbol.asyncDispose]();
    },
  };
}

async function expectFiles(directory: string, wanted: ReadonlyMap<string, Buffer>): Promise<void> {
  const found = (await readdir(directory, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1));
  expect(found.toSorted()).toEqual([...wanted.keys()].toSorted());
  for (const [name, body] of wanted) {
    expect((await readFile(join(directory, name))).equals(body), name).toBe(true);
  }
}

/** A shard with one tensor of so many bytes, none of which is like its neighbours. */
function shard(tensor: string, bytes: number): Buffer {
  const header = { [tensor]: { dtype: "I8", shape: [bytes], data_offsets: [0, bytes] } };
  return safetensorsParts(JSON.stringify(header), patternedBytes(bytes));
}
