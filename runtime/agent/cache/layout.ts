import { randomBytes } from "node:crypto";
import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { isKey } from "./key.ts";

/** Folder of the model's files inside an entry; the manifest lies beside it, so that no file name can hit it. */
export const filesFolder = "files";

/** Folder for locks, pins and the clock. */
const ownFolder = ".penstock";

const trashName = /^(?<key>.+)\.[0-9a-f]{12}\.trash$/;

/** Which names a cache gives to what lies in its directory. */
export class Layout {
  readonly root: string;

  constructor(root: string) {
    this.root = root;
  }

  async make(): Promise<void> {
    for (const folder of ["locks", "pins"]) await mkdir(this.#own(folder), { recursive: true });
  }

  get directoryLock(): string {
    return this.#own("lock");
  }

  get clock(): string {
    return this.#own("clock.json");
  }

  get pins(): string {
    return this.#own("pins");
  }

  get locks(): string {
    return this.#own("locks");
  }

  lock(key: string): string {
    return join(this.locks, key);
  }

  pin(key: string): string {
    return join(this.pins, key);
  }

  /** A model that is complete: `files/` and `manifest.json`. */
  entry(key: string): string {
    return join(this.root, key);
  }

  /** A model that is being fetched, or whose fetch broke off. */
  part(key: string): string {
    return join(this.root, `${key}.part`);
  }

  /** Sorts what lies in the directory by its name. `foreign` is what no cache made: nobody touches it. */
  async scan(): Promise<Scan> {
    const found: Scan = { entries: [], parts: [], trash: [], foreign: [] };
    for (const entry of await readdir(this.root, { withFileTypes: true })) {
      const { name } = entry;
      const part = name.endsWith(".part") ? name.slice(0, -".part".length) : "";
      if (name === ownFolder) continue;
      if (!entry.isDirectory()) found.foreign.push(name);
      else if (isKey(name)) found.entries.push(name);
      else if (isKey(part)) found.parts.push(part);
      else if (isKey(trashName.exec(name)?.groups?.["key"] ?? "")) found.trash.push(name);
      else found.foreign.push(name);
    }
    return found;
  }

  /** Deletes an entry or a part: out of the way by a rename first, so that nobody sees it half gone. */
  async delete(path: string, key: string): Promise<void> {
    const trash = join(this.root, `${key}.${randomBytes(6).toString("hex")}.trash`);
    if (await moved(path, trash)) await rm(trash, { recursive: true, force: true });
  }

  #own(name: string): string {
    return join(this.root, ownFolder, name);
  }
}

/** Keys of entries and of parts, and names of the rest. */
export interface Scan {
  readonly entries: string[];
  readonly parts: string[];
  readonly trash: string[];
  readonly foreign: string[];
}

/** Renames a folder. Answers false when it is not there, or something already has that name. */
export async function moved(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (thrown) {
    const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
    if (code === "ENOENT" || code === "ENOTEMPTY" || code === "EEXIST") return false;
    throw thrown;
  }
}
