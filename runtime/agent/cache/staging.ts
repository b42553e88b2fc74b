import { randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { isKey } from "./key.ts";

const owner = z.object({ pid: z.int().positive(), hostname: z.string() });

/** Downloads of this very process, which its pid alone cannot tell from those of an earlier one with the same pid. */
const active = new Set<string>();

/** A folder of another machine (a shared disk) that nobody wrote to for this long is left over. */
const silentMs = 10 * 60_000;
/** Unfinished downloads that nobody came back for. */
const forgottenMs = 24 * 3_600_000;

const leftoverName = /^(?<key>.+)\.[0-9a-f]{12}\.(?<kind>part|trash)$/;

/** A folder `<key>.<random>.part` that one process fills with a model. */
export class Staging implements AsyncDisposable {
  readonly directory: string;

  private constructor(directory: string) {
    this.directory = directory;
  }

  /**
   * A folder of our own for an entry. What a dead process (or an earlier try of this one) left for the same entry is
   * taken over by a rename, which only one process can win, so that its finished ranges count.
   */
  static async claim(root: string, key: string): Promise<Staging> {
    const directory = join(root, `${key}.${token()}.part`);
    active.add(directory);
    try {
      for (const { name } of (await leftovers(root)).filter((left) => left.key === key && left.kind === "part")) {
        const found = join(root, name);
        if (await isAlive(found)) continue;
        if (await renamed(found, directory)) break;
      }
      await mkdir(directory, { recursive: true });
      await writeFile(join(directory, "owner.json"), JSON.stringify({ pid: process.pid, hostname: hostname() }));
      return new Staging(directory);
    } catch (thrown) {
      active.delete(directory);
      throw thrown;
    }
  }

  /** Makes the folder the entry, at once. Answers false when another process published the same entry first. */
  async publish(entryDirectory: string): Promise<boolean> {
    await rm(join(this.directory, "owner.json"), { force: true });
    if (await renamed(this.directory, entryDirectory)) return true;
    await this.discard();
    return false;
  }

  async discard(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Lets go of the folder; what is in it stays for a later try. */
  async [Symbol.asyncDispose](): Promise<void> {
    active.delete(this.directory);
  }
}

/** Removes a folder of the cache: out of the way by a rename first, so that nobody sees it half gone. */
export async function removeDirectory(root: string, name: string): Promise<void> {
  const trash = join(root, `${name}.${token()}.trash`);
  if (await renamed(join(root, name), trash)) await rm(trash, { recursive: true, force: true });
}

/** Clears what dead processes left: half-removed entries, and downloads that nobody came back for within a day. */
export async function clearLeftovers(root: string, now: number): Promise<void> {
  for (const { name, kind } of await leftovers(root)) {
    const path = join(root, name);
    const forgotten = now - (await lastWriteMs(path)) > forgottenMs;
    if (kind === "trash" || (forgotten && !(await isAlive(path)))) await rm(path, { recursive: true, force: true });
  }
}

interface Leftover {
  readonly name: string;
  readonly key: string;
  readonly kind: "part" | "trash";
}

/** Folders whose names only this cache makes. Everything else in its directory is somebody else's. */
async function leftovers(root: string): Promise<Leftover[]> {
  const found: Leftover[] = [];
  for (const entry of await readdir(root, { withFileTypes: true })) {
    const groups = leftoverName.exec(entry.name)?.groups;
    const key = groups?.["key"] ?? "";
    if (!entry.isDirectory() || !isKey(key)) continue;
    found.push({ name: entry.name, key, kind: groups?.["kind"] === "trash" ? "trash" : "part" });
  }
  return found;
}

async function isAlive(directory: string): Promise<boolean> {
  if (active.has(directory)) return true;
  const who = await readOwner(directory);
  if (who === undefined || who.hostname !== hostname()) {
    return Date.now() - (await lastWriteMs(directory)) < silentMs;
  }
  // Our own pid, yet not active: an earlier process had it, as the first process of a container always has 1.
  if (who.pid === process.pid) return false;
  try {
    process.kill(who.pid, 0);
    return true;
  } catch (thrown) {
    // EPERM: it lives, but belongs to another user.
    return thrown instanceof Error && "code" in thrown && thrown.code === "EPERM";
  }
}

async function readOwner(directory: string): Promise<z.infer<typeof owner> | undefined> {
  try {
    return owner.safeParse(JSON.parse(await readFile(join(directory, "owner.json"), "utf8"))).data;
  } catch {
    return undefined;
  }
}

/** When a download last noted its progress down (every few seconds), which changes the folder itself. */
async function lastWriteMs(directory: string): Promise<number> {
  return (await stat(directory).catch(() => undefined))?.mtimeMs ?? 0;
}

async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (thrown) {
    const code = thrown instanceof Error && "code" in thrown ? thrown.code : undefined;
    // Somebody else was faster: the folder is gone, or the entry is there.
    if (code === "ENOENT" || code === "ENOTEMPTY" || code === "EEXIST") return false;
    throw thrown;
  }
}

function token(): string {
  return randomBytes(6).toString("hex");
}
