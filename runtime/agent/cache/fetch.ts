import { lstat, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { defaultLimits, download, type DownloadLimits } from "../downloads/download.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import { withRetry } from "../downloads/retry.ts";
import { listWithChecksums } from "../sources/checksums.ts";
import { readGgufHeader } from "../../lib/gguf/header.ts";
import { SourceError } from "../sources/errors.ts";
import { createSource } from "../sources/index.ts";
import type { Source, SourceOptions } from "../sources/source.ts";
import type { CachedSpec } from "./key.ts";
import { filesFolder, writeManifest, type FileRecord, type Manifest } from "./manifest.ts";
import { selectFiles, type Selection } from "./select.ts";
import { Staging } from "./staging.ts";

/** Where a fetch takes its bytes from, and how. */
export interface FetchOptions {
  readonly root: string;
  readonly key: string;
  readonly sources: SourceOptions;
  readonly limits?: Partial<DownloadLimits> | undefined;
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
}

/**
 * Fetches a model into the entry `<root>/<key>`, checked and visible at once.
 * A model that is replaced while it is read is listed and read once more. Throws what `download`, `selectFiles` and
 * `readGgufHeader` throw.
 */
export async function fetchEntry(spec: CachedSpec, options: FetchOptions): Promise<void> {
  const source = createSource(spec.source, options.sources);
  await using staging = await Staging.claim(options.root, options.key);
  try {
    const selection = await transfer(spec, { ...options, source, staging });
    const directory = join(staging.directory, filesFolder);
    if (spec.format === "gguf") await checkGgufFiles(selection, directory);
    await writeManifest(staging.directory, await describe(spec, { selection, directory, uri: source.uri }));
  } catch (thrown) {
    if (!(await hasPartial(staging))) await staging.discard();
    throw thrown;
  }
  await staging.publish(join(options.root, options.key));
}

/**
 * Whether a source on this machine has other files now than when its entry was fetched: looking costs nothing there, and
 * people write a new model over the old one. A source that is gone or broken leaves the entry as it is.
 */
export async function isOutdated(
  spec: CachedSpec,
  manifest: Manifest,
  { sources, signal }: Pick<FetchOptions, "sources" | "signal">,
): Promise<boolean> {
  if (!spec.source.startsWith("file://")) return false;
  try {
    const source = createSource(spec.source, sources);
    const { files } = selectFiles(spec, { listed: await listWithChecksums(source, signal), uri: source.uri });
    const recorded = new Map(manifest.files.map(({ path, etag }) => [path, etag]));
    return files.length !== recorded.size || files.some(({ path, etag }) => recorded.get(path) !== etag);
  } catch {
    return false;
  }
}

type Transfer = FetchOptions & { readonly source: Source; readonly staging: Staging };

async function transfer(spec: CachedSpec, options: Transfer): Promise<Selection> {
  try {
    return await transferOnce(spec, options);
  } catch (thrown) {
    if (!(thrown instanceof SourceError) || thrown.retry !== "start_over") throw thrown;
    return transferOnce(spec, options);
  }
}

async function transferOnce(spec: CachedSpec, options: Transfer): Promise<Selection> {
  const { source, staging, signal } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const listed = await withRetry(() => listWithChecksums(source, signal), { limits, signal });
  const selection = selectFiles(spec, { listed, uri: source.uri });
  const directory = join(staging.directory, filesFolder);
  // A process that died between its download and its manifest left a finished folder of unknown worth.
  await rm(directory, { recursive: true, force: true });
  await download({ ...options, files: selection.files, directory });
  return selection;
}

async function checkGgufFiles({ files }: Selection, directory: string): Promise<void> {
  for (const { path } of files) await readGgufHeader(join(directory, path), basename(path));
}

/** Whether ranges of a broken download are there for a later try. */
async function hasPartial({ directory }: Staging): Promise<boolean> {
  return (await lstat(join(directory, `${filesFolder}.part`)).catch(() => undefined)) !== undefined;
}

async function describe(
  { format }: CachedSpec,
  { selection, directory, uri }: { selection: Selection; directory: string; uri: string },
): Promise<Manifest> {
  const now = new Date().toISOString();
  const files: FileRecord[] = [];
  for (const { path, sizeBytes, sha256, etag } of selection.files) {
    const { mtimeMs } = await lstat(join(directory, path));
    files.push({ path, sizeBytes, mtimeMs, sha256, etag });
  }
  return { version: 1, source: uri, format, entry: selection.entry, files, createdAt: now, lastUsedAt: now };
}
