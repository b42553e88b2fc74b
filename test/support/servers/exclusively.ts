import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setTimeout as delay } from "node:timers/promises";

/** How often a lock that another process has is tried. */
const retryMs = 200;

/**
 * Runs `work` while no other process does so under the same lock file. The lock is SQLite's lock of a database file,
 * which the operating system releases however its owner ends. `signal` ends only the wait for it.
 */
export async function exclusively<T>(lockFile: string, work: () => Promise<T>, signal?: AbortSignal): Promise<T> {
  await mkdir(dirname(lockFile), { recursive: true });
  using database = new DatabaseSync(lockFile, { timeout: 0 });
  while (!tryLock(database)) await delay(retryMs, undefined, signal && { signal });
  return await work();
}

function tryLock(database: DatabaseSync): boolean {
  try {
    database.exec("BEGIN EXCLUSIVE");
    return true;
  } catch (error) {
    if (error instanceof Error && "errcode" in error && error.errcode === busy) return false;
    throw error;
  }
}

/** SQLITE_BUSY */
const busy = 5;
