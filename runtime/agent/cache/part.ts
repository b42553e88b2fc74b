import { mkdir, readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { diskUsage, readSmallJson, writeWhole } from "./files.ts";
import { filesFolder, moved, type Layout } from "./layout.ts";

const reservation = z.object({
  /** What the whole model takes. */
  bytes: z.number().nonnegative(),
  /** In the cache's time (`clock.ts`). */
  sinceMs: z.number(),
});

/** What a fetch under way has claimed of the disk. It lies beside the files; once nobody fetches it is only a date. */
export type Reservation = z.infer<typeof reservation>;

export async function readReservation(layout: Layout, key: string): Promise<Reservation | undefined> {
  return reservation.safeParse(await readSmallJson(reservationPath(layout, key))).data;
}

export async function writeReservation(layout: Layout, key: string, value: Reservation): Promise<void> {
  await writeWhole(reservationPath(layout, key), JSON.stringify(value));
}

/** Makes the folder of a fetch. What an earlier try left in it counts: the download goes on from there. */
export async function makePart(layout: Layout, key: string): Promise<void> {
  await mkdir(layout.part(key), { recursive: true });
}

/** Bytes of models in the folder of a fetch, as the disk counts them; what a fetch notes down beside them is left out. */
export async function partBytes(layout: Layout, key: string): Promise<number> {
  const directory = layout.part(key);
  const entries = await readdir(directory, { withFileTypes: true }).catch(() => []);
  const folders = entries.filter((entry) => entry.isDirectory());
  const sizes = await Promise.all(folders.map(({ name }) => diskUsage(join(directory, name))));
  return sizes.reduce((sum, size) => sum + size, 0);
}

/** Deletes the folder of a fetch that ended, unless a later try can use what is in it. */
export async function clearPart(layout: Layout, key: string): Promise<void> {
  const directory = layout.part(key);
  const names = await readdir(directory).catch(() => []);
  // `files.part` is an unfinished download, `files` one whose worth only the source's checksums can tell.
  if (!names.some((name) => name.startsWith(filesFolder))) await rm(directory, { recursive: true, force: true });
}

/**
 * Makes an entry that has lost its manifest the folder of a fetch that broke off: the next fetch keeps its files if the
 * source's checksums vouch for them. Call it with the entry's lock.
 */
export async function demote(layout: Layout, key: string): Promise<void> {
  if (!(await moved(layout.entry(key), layout.part(key)))) await layout.delete(layout.entry(key), key);
}

/** Makes the folder of a fetch the entry. Call it with the entry's lock. */
export async function promote(layout: Layout, key: string): Promise<void> {
  await rm(reservationPath(layout, key), { force: true });
  if (!(await moved(layout.part(key), layout.entry(key)))) {
    throw new Error(`${layout.entry(key)} appeared while its lock was held`);
  }
}

function reservationPath(layout: Layout, key: string): string {
  return join(layout.part(key), "reservation.json");
}
