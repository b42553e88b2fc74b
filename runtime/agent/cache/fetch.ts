import { lstat, readdir, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import { readGgufHeader } from "../../lib/gguf/header.ts";
import { readSafetensorsModel } from "../../lib/safetensors/model.ts";
import { defaultLimits, download, type DownloadLimits } from "../downloads/download.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import { withRetry } from "../downloads/retry.ts";
import { verifyFiles } from "../downloads/verify.ts";
import { listWithChecksums } from "../sources/checksums.ts";
import { SourceError } from "../sources/errors.ts";
import { createSource } from "../sources/index.ts";
import type { Source, SourceFile, SourceOptions } from "../sources/source.ts";
import type { CachedSpec } from "./key.ts";
import { filesFolder } from "./layout.ts";
import type { FileRecord, Manifest } from "./manifest.ts";
import { selectFiles, type Selection } from "./select.ts";

/** Where a fetch takes its bytes from, and how. */
export interface FetchOptions {
  /** Folder that is this fetch's alone. What a fetch that broke off left in it is used. */
  readonly directory: string;
  readonly sources: SourceOptions;
  readonly limits?: Partial<DownloadLimits> | undefined;
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
  /** Called with the model's bytes before any is written. What it throws ends the fetch. */
  readonly reserve: (bytes: number) => Promise<void>;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
}

/** What was fetched: a manifest that does not know of its use yet. */
export type Fetched = Omit<Manifest, "lastUsedMs" | "modelIds">;

/**
 * Fetches a model's files, checked, into `<directory>/files`.
 * A model that is replaced while it is read is listed and read once more. Throws what `download`, `selectFiles`, `reserve`
 * and `readGgufHeader` throw.
 */
export async function fetchFiles(spec: CachedSpec, options: FetchOptions): Promise<Fetched> {
  const source = createSource(spec.source, options.sources);
  const directory = join(options.directory, filesFolder);
  const selection = await transfer(spec, { ...options, source, directory });
  if (spec.format === "gguf") await checkGgufFiles(selection, directory);
  if (spec.format === "safetensors") await readSafetensorsModel(directory);
  return describe(spec, { selection, directory, uri: source.uri });
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

type Transfer = FetchOptions & { readonly source: Source };

async function transfer(spec: CachedSpec, options: Transfer): Promise<Selection> {
  try {
    return await transferOnce(spec, options);
  } catch (thrown) {
    if (!(thrown instanceof SourceError) || thrown.retry !== "start_over") throw thrown;
    return transferOnce(spec, options);
  }
}

async function transferOnce(spec: CachedSpec, options: Transfer): Promise<Selection> {
  const { source, signal, directory } = options;
  const limits = { ...defaultLimits, ...options.limits };
  const listed = await withRetry(() => listWithChecksums(source, signal), { limits, signal });
  const selection = selectFiles(spec, { listed, uri: source.uri });
  await options.reserve(selection.files.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
  if (await isVouchedFor(selection.files, options)) return selection;
  await rm(directory, { recursive: true, force: true });
  await download({ ...options, files: selection.files });
  return selection;
}

/**
 * Whether the finished folder of a process that died before it wrote its manifest, or of an entry that lost its own, is
 * just what the source lists, checksums included.
 */
async function isVouchedFor(files: readonly SourceFile[], options: Transfer): Promise<boolean> {
  const { directory, source, onProgress, signal } = options;
  if (files.some(({ sha256 }) => sha256 === null)) return false;
  try {
    const present = await readdir(directory, { recursive: true, withFileTypes: true });
    if (present.filter((entry) => !entry.isDirectory()).length !== files.length) return false;
    for (const { path, sizeBytes } of files) {
      const about = await lstat(join(directory, path));
      if (!about.isFile() || about.size !== sizeBytes) return false;
    }
    await verifyFiles(files, { directory, uri: source.uri, onProgress, signal });
    return true;
  } catch {
    signal.throwIfAborted();
    return false;
  }
}

async function checkGgufFiles({ files }: Selection, directory: string): Promise<void> {
  try {
    for (const { path } of files) await readGgufHeader(join(directory, path), basename(path));
  } catch (thrown) {
    await rm(directory, { recursive: true, force: true });
    throw thrown;
  }
}

async function describe(
  { format, sha256 }: CachedSpec,
  { selection, directory, uri }: { selection: Selection; directory: string; uri: string },
): Promise<Fetched> {
  const files: FileRecord[] = [];
  for (const { path, sizeBytes, sha256: checksum, etag } of selection.files) {
    const { mtimeMs } = await lstat(join(directory, path));
    files.push({ path, sizeBytes, mtimeMs, sha256: checksum, etag });
  }
  const createdAt = new Date().toISOString();
  return { version: 2, source: uri, format, sha256: sha256 ?? null, entry: selection.entry, files, createdAt };
}
