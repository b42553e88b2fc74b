import { createHash } from "node:crypto";
import { Meter, type DownloadProgress } from "../../../runtime/agent/downloads/progress.ts";
import { listWithChecksums } from "../../../runtime/agent/sources/checksums.ts";
import type { Source, SourceFile } from "../../../runtime/agent/sources/source.ts";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { readAhead, readParts } from "./read-parts.ts";
import type { ModelStore } from "./store.ts";

/**
 * Name of the list of checksums that lies beside a model's files, in coreutils' format. It is written last: a folder
 * without it is not whole. Agents check what they download against it.
 */
export const checksumList = "SHA256SUMS";

/** Files at once: with their parts, less than 1 GiB is in memory. */
const filesAtOnce = 4;

/** What a push is told. */
export interface PushOptions {
  readonly source: Source;
  readonly store: ModelStore;
  /** Folder in the store, such as `models/llama-8b`. */
  readonly folder: string;
  /** By path: what an earlier push has left there. */
  readonly there: ReadonlyMap<string, SourceFile>;
  readonly signal: AbortSignal;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly partBytes?: number | undefined;
}

/** What a push did. */
export interface Pushed {
  readonly files: number;
  readonly sizeBytes: number;
  /** Files that an earlier push had left with the same sum. */
  readonly kept: number;
}

/**
 * Copies every file of a source into a folder of the store, several files and parts at once. Each is hashed on its way and
 * checked against the source's own sum where it has one; files that are there with the same sum are kept, and files that
 * the source has no more are removed. Throws `checksum_mismatch` for bytes that are not what the source says they are;
 * the folder is then not published.
 */
export async function pushModel(options: PushOptions): Promise<Pushed> {
  const { source, store, folder, there, signal } = options;
  const files = await listWithChecksums(source, signal);
  const sizeBytes = files.reduce((sum, file) => sum + file.sizeBytes, 0);
  const [kept = [], rest = []] = [true, false].map((same) => files.filter((file) => isSame(file, there) === same));
  const stale = [...there.keys()].filter((path) => !files.some((file) => file.path === path));
  const summary = { files: files.length, sizeBytes, kept: kept.length };
  if (rest.length === 0 && stale.length === 0) return summary;
  const sums = new Map(kept.map(({ path, sha256 }) => [path, sha256 ?? ""]));
  // From here on the folder is not whole, and says so.
  await store.remove([`${folder}/${checksumList}`]);
  const alreadyDone = kept.reduce((sum, file) => sum + file.sizeBytes, 0);
  {
    using meter = new Meter({ phase: "download", bytesTotal: sizeBytes, alreadyDone }, options.onProgress);
    const failure = new AbortController();
    const each = { ...options, signal: AbortSignal.any([signal, failure.signal]) };
    const queue = rest.values();
    const worker = async (): Promise<void> => {
      for (const file of queue) sums.set(file.path, await pushFile(file, each, meter));
    };
    const work = Array.from({ length: filesAtOnce }, async () => {
      await worker().catch((error: unknown) => {
        failure.abort(error);
        throw error;
      });
    });
    // Nothing goes on behind the back of whoever hears of the first failure.
    await Promise.allSettled(work);
    await Promise.all(work);
  }
  await store.remove(stale.map((path) => `${folder}/${path}`));
  await store.put(`${folder}/${checksumList}`, Buffer.from(sumsText(sums)));
  return summary;
}

function isSame({ path, sizeBytes, sha256 }: SourceFile, there: ReadonlyMap<string, SourceFile>): boolean {
  const known = there.get(path);
  return sha256 !== null && known?.sha256 === sha256 && known.sizeBytes === sizeBytes;
}

/** Uploads one file and answers its SHA-256. */
async function pushFile(
  file: SourceFile,
  { source, store, folder, signal, partBytes }: PushOptions,
  meter: Meter,
): Promise<string> {
  const path = `${folder}/${file.path}`;
  const hash = createHash("sha256");
  if (file.sizeBytes === 0) {
    await store.put(path, new Uint8Array());
    return hash.digest("hex");
  }
  const upload = await store.upload(path);
  const uploads: Promise<void>[] = [];
  try {
    for await (const bytes of readParts({ source, file, signal, partBytes })) {
      hash.update(bytes);
      const part = upload.part(uploads.length, bytes, signal).then(() => meter.add(bytes.length));
      part.catch(() => undefined);
      uploads.push(part);
      // As many on their way out as on their way in.
      await uploads.at(-readAhead);
    }
    await Promise.all(uploads);
    const sha256 = hash.digest("hex");
    if (file.sha256 !== null && file.sha256 !== sha256) throw damaged(source, file, sha256);
    await upload.finish();
    return sha256;
  } catch (error) {
    await Promise.allSettled(uploads);
    await upload.abort().catch(() => undefined);
    throw error;
  }
}

function damaged(source: Source, file: SourceFile, sha256: string): PenstockError {
  return new PenstockError(
    "checksum_mismatch",
    `${file.path} of ${source.uri} hashes to ${sha256}, and should to ${file.sha256 ?? ""}: the model is not published.`,
  );
}

function sumsText(sums: ReadonlyMap<string, string>): string {
  return [...sums]
    .toSorted(([a], [b]) => (a < b ? -1 : 1))
    .map(([path, sha256]) => `${sha256}  ${path}\n`)
    .join("");
}
