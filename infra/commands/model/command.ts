import { createHash } from "node:crypto";
import { listWithChecksums } from "../../../runtime/agent/sources/checksums.ts";
import { createSource, type SourceOptions } from "../../../runtime/agent/sources/index.ts";
import type { Source, SourceFile } from "../../../runtime/agent/sources/source.ts";
import { PenstockError, toPenstockError } from "../../../runtime/contracts/errors.ts";
import { formatBytes } from "../../../runtime/lib/bytes.ts";
import type { Item } from "./items.ts";
import { checksumList, pushModel, type PushOptions } from "./push.ts";
import { readParts } from "./read-parts.ts";
import type { ModelStore } from "./store.ts";

/** A stack's cache, and how to read it and the places that models come from. */
export interface Cache {
  /** `az://account/container` or `s3://bucket`. */
  readonly uri: string;
  readonly store: ModelStore;
  readonly sources: SourceOptions;
  readonly signal: AbortSignal;
}

/** What became of one item. */
export interface Outcome {
  readonly name: string;
  readonly ok: boolean;
  readonly text: string;
}

/** A folder of the cache. */
export interface Listed {
  /** `model` or `model:adapter`; null for what no model of the stack uses. */
  readonly name: string | null;
  readonly folder: string;
  readonly files: number;
  readonly sizeBytes: number;
  /** Whether its list of checksums is there, which a push writes last. */
  readonly isWhole: boolean;
}

/** Copies an item into the cache, from its origin or from `source`. Throws what sources and the store throw, explained. */
export async function pushItem(
  cache: Cache,
  { item, source }: { readonly item: Item; readonly source: string | null },
  onProgress: PushOptions["onProgress"],
): Promise<Outcome> {
  const { name, folder } = item;
  const origin = source ?? item.origin;
  if (origin.startsWith(`${cache.uri}/`)) {
    return { name, ok: false, text: `its source is this cache; say where from: push ${name} --from DIR` };
  }
  return await explained(cache, async () => {
    const there = new Map((await filesIn(cache, folder)).map((file) => [file.path, file]));
    const from = createSource(origin, cache.sources);
    const pushed = await pushModel({ ...cache, source: from, folder, there, onProgress });
    const kept = pushed.kept === 0 ? "" : `, ${pushed.kept} of them there already`;
    const text = `${pushed.files} files, ${formatBytes(pushed.sizeBytes)}${kept}, in ${cache.uri}/${folder}`;
    return { name, ok: true, text };
  });
}

/** Every model and adapter in the cache, and what of the stack is not there. */
export async function listCache(cache: Cache, items: readonly Item[]): Promise<Listed[]> {
  return await explained(cache, async () => {
    const stored = [...(await cache.store.list("models/")), ...(await cache.store.list("adapters/"))];
    const names = new Map(items.map(({ folder, name }) => [folder, name]));
    const byFolder = Map.groupBy(stored, ({ path }) => folderOf(path, names));
    const found = [...byFolder].map(([folder, files]) => ({
      name: names.get(folder) ?? null,
      folder,
      files: files.filter(({ path }) => !path.endsWith(`/${checksumList}`)).length,
      sizeBytes: files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      isWhole: files.some(({ path }) => path === `${folder}/${checksumList}`),
    }));
    const missing = items
      .filter(({ folder }) => !byFolder.has(folder))
      .map(({ name, folder }) => ({ name, folder, files: 0, sizeBytes: 0, isWhole: false }));
    return [...found, ...missing].toSorted((a, b) => a.folder.localeCompare(b.folder));
  });
}

/** Removes an item's files. */
export async function removeItem(cache: Cache, { name, folder }: Item): Promise<Outcome> {
  return await explained(cache, async () => {
    const paths = (await cache.store.list(`${folder}/`)).map(({ path }) => path);
    // The list of checksums first: what is left after a break is not taken for whole.
    await cache.store.remove(paths.filter((path) => path.endsWith(`/${checksumList}`)));
    await cache.store.remove(paths.filter((path) => !path.endsWith(`/${checksumList}`)));
    return { name, ok: paths.length > 0, text: paths.length === 0 ? "was not there" : `${paths.length} files removed` };
  });
}

/** Reads an item's files from the cache and compares them with their checksums. */
export async function verifyItem(cache: Cache, { name, folder }: Item): Promise<Outcome> {
  return await explained(cache, async () => {
    const files = await filesIn(cache, folder);
    if (files.length === 0) return { name, ok: false, text: `nothing is in ${cache.uri}/${folder}; push it` };
    const source = sourceIn(cache, folder);
    await source.list(cache.signal);
    const wrong: string[] = [];
    for (const file of files) {
      if (file.sha256 === null) wrong.push(`${file.path} has no checksum`);
      else if ((await hashOf(source, file, cache.signal)) !== file.sha256) wrong.push(`${file.path} is damaged`);
    }
    const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
    return wrong.length === 0
      ? { name, ok: true, text: `${files.length} files, ${formatBytes(sizeBytes)}: as they were pushed` }
      : { name, ok: false, text: `${wrong.join(", ")}; push it again` };
  });
}

function sourceIn(cache: Cache, folder: string): Source {
  return createSource(`${cache.uri}/${folder}`, cache.sources);
}

/** Files of a folder with their checksums; none when there is no such folder. */
async function filesIn(cache: Cache, folder: string): Promise<SourceFile[]> {
  if ((await cache.store.list(`${folder}/`)).length === 0) return [];
  return await listWithChecksums(sourceIn(cache, folder), cache.signal);
}

async function hashOf(source: Source, file: SourceFile, signal: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  if (file.sizeBytes > 0) for await (const bytes of readParts({ source, file, signal })) hash.update(bytes);
  return hash.digest("hex");
}

/** The folder of an item, or the second or third part of a path that nothing of the stack explains. */
function folderOf(path: string, names: ReadonlyMap<string, string>): string {
  const parts = path.split("/");
  for (let count = parts.length - 1; count > 1; count -= 1) {
    const folder = parts.slice(0, count).join("/");
    if (names.has(folder)) return folder;
  }
  return parts.slice(0, -1).join("/");
}

/** The store's own errors with what may be done about them. */
async function explained<Answer>({ store, uri }: Cache, work: () => Promise<Answer>): Promise<Answer> {
  try {
    return await work();
  } catch (error) {
    const remedy = error instanceof PenstockError ? null : store.explain(error);
    if (remedy === null) throw toPenstockError(error);
    throw new PenstockError("source_failed", `${uri} cannot be used. ${remedy}`, { cause: error });
  }
}
