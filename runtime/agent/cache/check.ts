import { lstat } from "node:fs/promises";
import { join } from "node:path";
import type { DownloadProgress } from "../downloads/progress.ts";
import { verifyFiles } from "../downloads/verify.ts";
import { filesFolder } from "./layout.ts";
import type { FileRecord, Manifest } from "./manifest.ts";

/**
 * Whether an entry still is what was published: length and modification time as recorded, or else the checksum.
 * Answers the manifest with the times as they are now; undefined when the entry is of no use any more.
 */
export async function checkEntry(
  entryDirectory: string,
  manifest: Manifest,
  options: { onProgress: (progress: DownloadProgress) => void; signal: AbortSignal },
): Promise<Manifest | undefined> {
  const directory = join(entryDirectory, filesFolder);
  const files: FileRecord[] = [];
  const changed: FileRecord[] = [];
  for (const file of manifest.files) {
    const about = await lstat(join(directory, file.path)).catch(() => undefined);
    if (about?.isFile() !== true || about.size !== file.sizeBytes) return undefined;
    files.push({ ...file, mtimeMs: about.mtimeMs });
    if (about.mtimeMs === file.mtimeMs) continue;
    // Somebody wrote to it, and nothing says what it should be.
    if (file.sha256 === null) return undefined;
    changed.push(file);
  }
  try {
    await verifyFiles(changed, { directory, uri: manifest.source, ...options });
  } catch (thrown) {
    if (options.signal.aborted) throw thrown;
    return undefined;
  }
  return { ...manifest, files };
}
