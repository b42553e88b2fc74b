import { addAbortSignal, Readable } from "node:stream";
import { unusable } from "./errors.ts";
import type { Checksum, SourceFile } from "./source.ts";

/** One object of a store, by its full name. */
export interface StoredObject {
  readonly name: string;
  readonly sizeBytes: number;
  readonly etag: string | null;
  readonly sha256: string | null;
  readonly checksum?: Checksum;
}

/** More objects than this under one folder are not a model. */
export const maxObjects = 10_000;

/** Throws when a listing has too many objects. */
export function requireFew(objects: readonly StoredObject[], uri: string): void {
  if (objects.length > maxObjects) throw unusable(uri, `It has more than ${maxObjects} files; name a smaller folder.`);
}

/** Objects as files of the folder `folder` (empty: the whole container or bucket). */
export function filesIn(folder: string, objects: readonly StoredObject[]): SourceFile[] {
  const skip = folder === "" ? 0 : folder.length + 1;
  return objects.map(({ name, ...facts }) => ({ path: name.slice(skip), ranges: true, ...facts }));
}

/** The folder part of an object's name. */
export function folderOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf("/")));
}

/** The `sha256` that whoever uploaded an object may have written into its metadata. */
export function metadataSha256(metadata: Readonly<Record<string, string>> | undefined): string | null {
  for (const [name, value] of Object.entries(metadata ?? {})) {
    if (name.toLowerCase() === "sha256" && /^[0-9a-f]{64}$/i.test(value)) return value.toLowerCase();
  }
  return null;
}

/** The chunks of an SDK's body. Ends at once when the signal is aborted, which the SDKs do not promise. */
export async function* chunksOf(body: unknown, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  if (!(body instanceof Readable)) throw new TypeError("the SDK gave no stream");
  yield* addAbortSignal(signal, body) as AsyncIterable<Uint8Array>; // bytes, as no encoding is set
}
