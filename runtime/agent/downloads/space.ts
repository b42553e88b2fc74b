import { statfs } from "node:fs/promises";
import { PenstockError } from "../../contracts/errors.ts";

/** Bytes that this process may still write on the file system of `directory`. */
export async function freeBytes(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

/** The error for a disk that cannot hold what is to come. */
export function diskFull({ needed, free, cause }: { needed?: number; free: number; cause?: unknown }): PenstockError {
  const wish = needed === undefined ? "something" : `${needed} bytes (${gib(needed)} GiB)`;
  return new PenstockError(
    "disk_full",
    `The model needs ${wish} more on the cache's disk, which has ${free} bytes (${gib(free)} GiB) free. ` +
      "Unload models to REMOTE, or give the cache a larger disk.",
    { cause },
  );
}

/** Whether a write failed for want of room: a full disk, or a quota. */
export function isOutOfSpace(thrown: unknown): boolean {
  return thrown instanceof Error && "code" in thrown && (thrown.code === "ENOSPC" || thrown.code === "EDQUOT");
}

function gib(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(2);
}
