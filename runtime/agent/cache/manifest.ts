import { join } from "node:path";
import { z } from "zod";
import { modelFormat } from "../../contracts/model.ts";
import { readSmallJson, writeWhole } from "./files.ts";

/** A path that stays inside its folder: what is on a disk may have been written by anybody. */
const innerPath = z
  .string()
  .max(1_024)
  .refine((path) => !path.split("/").some((name) => name === ".." || name === "." || name === ""));

const fileRecord = z.object({
  path: innerPath,
  sizeBytes: z.int().nonnegative(),
  /** Modification time when the file was checked: another one means that somebody wrote to it. */
  mtimeMs: z.number(),
  sha256: z.string().nullable(),
  etag: z.string().nullable(),
});

/** An entry remembers so many ids of models that it serves. */
export const maxModelIds = 64;

const manifest = z.object({
  version: z.literal(2),
  /** URI without credentials. */
  source: z.string(),
  format: modelFormat,
  /** The checksum that the model's spec named. */
  sha256: z.string().nullable(),
  /** Entry path inside `files/`; empty for the folder itself. */
  entry: z.union([z.literal(""), innerPath]),
  files: z.array(fileRecord).min(1).max(10_000),
  createdAt: z.iso.datetime(),
  /** In the cache's time (`clock.ts`). */
  lastUsedMs: z.number(),
  /** Models that this entry serves. */
  modelIds: z.array(z.string().max(400)).max(maxModelIds),
});

/** What an entry of the cache says about itself, in `manifest.json`. */
export type Manifest = z.infer<typeof manifest>;
export type FileRecord = z.infer<typeof fileRecord>;

const maxManifestBytes = 8 * 2 ** 20;

export function manifestPath(entryDirectory: string): string {
  return join(entryDirectory, "manifest.json");
}

/** The manifest of an entry; undefined when there is none that can be read. */
export async function readManifest(entryDirectory: string): Promise<Manifest | undefined> {
  return manifest.safeParse(await readSmallJson(manifestPath(entryDirectory), maxManifestBytes)).data;
}

/** Writes an entry's manifest, whole or not at all. `sync` waits until it is on the disk. */
export async function writeManifest(entryDirectory: string, value: Manifest, { sync = false } = {}): Promise<void> {
  await writeWhole(manifestPath(entryDirectory), `${JSON.stringify(value, null, 2)}\n`, { sync });
}

/** Bytes of an entry's files. */
export function sizeOf({ files }: Manifest): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0);
}
