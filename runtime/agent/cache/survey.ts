import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { Catalog } from "./catalog.ts";
import { demote, partBytes, readReservation } from "./part.ts";
import type { SharedDirectory } from "./shared.ts";

/** An unfinished fetch on disk. */
export interface Part {
  readonly key: string;
  /** Whether somebody is fetching it now. */
  readonly isLive: boolean;
  readonly diskBytes: number;
  readonly reservedBytes: number;
  /** When it was last begun, in the cache's time; undefined when it does not say. */
  readonly sinceMs: number | undefined;
}

/** What lies in a cache's directory beside the entries. */
export interface Survey {
  readonly parts: readonly Part[];
  /** Names that no cache made. */
  readonly foreign: readonly string[];
}

/**
 * Looks at the whole directory: brings the catalog up to date and clears what a process left that died halfway.
 * Call it under the directory's lock.
 */
export async function survey(shared: SharedDirectory, catalog: Catalog): Promise<Survey> {
  const { layout } = shared;
  const scan = await layout.scan();
  // Deleting happens under the lock that we hold, so whoever began this is dead.
  for (const name of scan.trash) await rm(join(layout.root, name), { recursive: true, force: true });
  const keys = new Set(scan.parts);
  for (const key of await catalog.refresh(scan.entries)) {
    using lock = shared.tryLock(key, "remove");
    if (lock === undefined) continue;
    await demote(layout, key);
    keys.add(key);
  }
  const parts: Part[] = [];
  for (const key of keys) parts.push(await measure(shared, key));
  return { parts, foreign: scan.foreign };
}

/** What a fetch takes of the budget: all that it will, while somebody fetches. */
export function chargeOf({ isLive, diskBytes, reservedBytes }: Part): number {
  return isLive ? Math.max(diskBytes, reservedBytes) : diskBytes;
}

async function measure(shared: SharedDirectory, key: string): Promise<Part> {
  using free = shared.tryLock(key, "fetch");
  const reservation = await readReservation(shared.layout, key);
  return {
    key,
    isLive: free === undefined,
    diskBytes: await partBytes(shared.layout, key),
    reservedBytes: reservation?.bytes ?? 0,
    sinceMs: reservation?.sinceMs,
  };
}
