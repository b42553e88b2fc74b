import { randomBytes } from "node:crypto";
import { lstat, open, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";

const fileRecord = z.object({
  path: z.string(),
  sizeBytes: z.int().nonnegative(),
  /** Modification time when the file was checked: another one means that somebody wrote to it. */
  mtimeMs: z.number(),
  sha256: z.string().nullable(),
  etag: z.string().nullable(),
});

const manifest = z.object({
  version: z.literal(1),
  /** URI without credentials. */
  source: z.string(),
  format: z.enum(["gguf", "safetensors", "engine"]),
  /** Entry path inside `files/`; empty for the folder itself. */
  entry: z.string(),
  files: z.array(fileRecord).min(1).max(10_000),
  createdAt: z.iso.datetime(),
  lastUsedAt: z.iso.datetime(),
});

/** What an entry of the cache says about itself, in `manifest.json`. */
export type Manifest = z.infer<typeof manifest>;
export type FileRecord = z.infer<typeof fileRecord>;

const maxManifestBytes = 8 * 2 ** 20;

/** Folder of the model's files inside an entry; the manifest lies beside it, so that no file name can hit it. */
export const filesFolder = "files";

/** The manifest of an entry; undefined when there is none that can be read. */
export async function readManifest(entryDirectory: string): Promise<Manifest | undefined> {
  const path = join(entryDirectory, "manifest.json");
  try {
    const about = await lstat(path);
    if (!about.isFile() || about.size > maxManifestBytes) return undefined;
    return manifest.safeParse(JSON.parse(await readFile(path, "utf8"))).data;
  } catch {
    return undefined;
  }
}

/** Writes an entry's manifest, whole or not at all. */
export async function writeManifest(entryDirectory: string, value: Manifest): Promise<void> {
  const path = join(entryDirectory, "manifest.json");
  // Another process may write the same manifest at this moment.
  const fresh = `${path}.${randomBytes(6).toString("hex")}`;
  {
    await using handle = await open(fresh, "wx", 0o644);
    await handle.writeFile(`${JSON.stringify(value, null, 2)}\n`);
    await handle.sync();
  }
  await rename(fresh, path);
}

/** Bytes of an entry's files. */
export function sizeOf({ files }: Manifest): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0);
}
