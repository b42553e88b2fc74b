import { randomBytes } from "node:crypto";
import { lstat, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";

/** The JSON of a file; undefined when it is missing, broken, not a plain file or larger than `maxBytes`. */
export async function readSmallJson(path: string, maxBytes = 64 * 1024): Promise<unknown> {
  try {
    const about = await lstat(path);
    if (!about.isFile() || about.size > maxBytes) return undefined;
    return JSON.parse(await readFile(path, "utf8"));
  } catch {
    return undefined;
  }
}

/** Writes a file so that others see it whole or not at all. `sync` waits until it is on the disk. */
export async function writeWhole(path: string, content: string, { sync = false } = {}): Promise<void> {
  const fresh = `${path}.${randomBytes(6).toString("hex")}`;
  try {
    await using handle = await open(fresh, "wx", 0o644);
    await handle.writeFile(content);
    if (sync) await handle.sync();
  } catch (thrown) {
    await rm(fresh, { force: true });
    throw thrown;
  }
  await rename(fresh, path);
}

export async function isThere(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined)) !== undefined;
}

/** Bytes that a folder's files take on their disk, holes left out; 0 when it is gone. */
export async function diskUsage(directory: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) sum += await diskUsage(path);
    // POSIX counts blocks of 512 bytes, whatever the file system's own are.
    else sum += ((await lstat(path).catch(() => undefined))?.blocks ?? 0) * 512;
  }
  return sum;
}

/** Runs over all items, at most 32 at once: enough for a disk, and no thousands of open files. */
export async function overAll<T, R>(items: readonly T[], run: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let from = 0; from < items.length; from += 32) {
    results.push(...(await Promise.all(items.slice(from, from + 32).map(run))));
  }
  return results;
}
