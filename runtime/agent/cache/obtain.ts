import { setTimeout as delay } from "node:timers/promises";
import { PenstockError } from "../../contracts/errors.ts";
import type { DownloadLimits } from "../downloads/download.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import { isOutOfSpace } from "../downloads/space.ts";
import type { SourceOptions } from "../sources/source.ts";
import { checkEntry } from "./check.ts";
import { isThere } from "./files.ts";
import { fetchFiles, isOutdated, type Fetched } from "./fetch.ts";
import { orDiskFull } from "./full.ts";
import type { Hold } from "./holds.ts";
import type { CachedSpec } from "./key.ts";
import type { FileLock } from "./lock.ts";
import { readManifest, type Manifest } from "./manifest.ts";
import { clearPart, demote, makePart } from "./part.ts";
import type { Priority } from "./priority.ts";
import type { Room } from "./room.ts";
import type { SharedDirectory } from "./shared.ts";
import type { Usage } from "./usage.ts";

/** How often one looks whether another agent has finished fetching a model. */
const pollMs = 200;

/** What obtaining a model needs of its cache. */
export interface Inside {
  readonly shared: SharedDirectory;
  readonly room: Room;
  readonly usage: Usage;
  readonly priority: Priority;
  readonly sources: SourceOptions;
  readonly limits?: Partial<DownloadLimits> | undefined;
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
}

/** One model to obtain. */
export interface Work {
  readonly key: string;
  readonly spec: CachedSpec;
  /** Of this process; its lock is taken once the entry is there. */
  readonly hold: Hold;
  /** Whether nobody waits for it; a request that comes later may change that. */
  readonly isBackground: () => boolean;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
}

/** A model's entry, which is locked for use. */
export interface Obtained {
  readonly manifest: Manifest;
  readonly fromCache: boolean;
}

type Turn =
  | { readonly kind: "present"; readonly manifest: Manifest }
  | { readonly kind: "ours"; readonly lock: FileLock }
  | { readonly kind: "theirs" };

/**
 * Brings a model's entry to disk, unless it is there and passes its check, and locks it for use. One agent fetches; the
 * others wait, and go on in its place should it die. Throws what `fetchFiles` throws, `cache_full`, `disk_full`,
 * `model_in_use` when damaged files are still in use, or the signal's reason.
 */
export async function obtain(work: Work, inside: Inside): Promise<Obtained> {
  // It may be so full that not even a lock or the folder for a download fits.
  return orDiskFull(inside.shared.layout.root, () => obtainEntry(work, inside));
}

async function obtainEntry(work: Work, inside: Inside): Promise<Obtained> {
  for (;;) {
    const turn = await inside.shared.locked(() => takeTurn(work, inside));
    if (turn.kind === "present") {
      const manifest = await current(turn.manifest, work, inside);
      if (manifest === undefined) continue;
      return { manifest: await inside.shared.locked(() => inside.usage.note(work, manifest)), fromCache: true };
    }
    if (turn.kind === "ours") {
      using _lock = turn.lock;
      return { manifest: await fetchAndPublish(work, inside), fromCache: false };
    }
    await delay(pollMs, undefined, { signal: work.signal }).catch(() => work.signal.throwIfAborted());
  }
}

async function takeTurn({ key, hold }: Work, { shared }: Inside): Promise<Turn> {
  const manifest = await readManifest(shared.layout.entry(key));
  if (manifest !== undefined) {
    hold.lock ??= shared.tryLock(key, "use");
    return hold.lock === undefined ? { kind: "theirs" } : { kind: "present", manifest };
  }
  if (await isThere(shared.layout.entry(key))) {
    using alone = shared.tryLock(key, "remove");
    if (alone === undefined) throw damagedInUse();
    await demote(shared.layout, key);
  }
  const lock = shared.tryLock(key, "fetch");
  return lock === undefined ? { kind: "theirs" } : { kind: "ours", lock };
}

function damagedInUse(): PenstockError {
  return new PenstockError(
    "model_in_use",
    "The model's files on disk were changed, and something still uses them. Unload it everywhere, then try again.",
    { retryAfterSeconds: 5 },
  );
}

/** The manifest of an entry that passes its check and is what its source has now; undefined when it was removed. */
async function current(manifest: Manifest, work: Work, inside: Inside): Promise<Manifest | undefined> {
  const checked = await checkEntry(inside.shared.layout.entry(work.key), manifest, work);
  if (checked === undefined) {
    if (await drop(work, inside)) return undefined;
    throw damagedInUse();
  }
  if (!(await isOutdated(work.spec, manifest, { ...inside, ...work }))) return checked;
  // Whoever uses the old files may go on, and until then they are what the cache has.
  return (await drop(work, inside)) ? undefined : checked;
}

/** Removes an entry unless somebody else uses it. */
async function drop({ key, hold }: Work, { shared, room }: Inside): Promise<boolean> {
  return shared.locked(async () => {
    if (hold.given > 0) return false;
    hold.lock?.[Symbol.dispose]();
    hold.lock = undefined;
    if (await room.remove(key)) return true;
    hold.lock = shared.tryLock(key, "use");
    return false;
  });
}

async function fetchAndPublish(work: Work, inside: Inside): Promise<Manifest> {
  const { shared, usage } = inside;
  using _first = work.isBackground() ? undefined : inside.priority.foreground();
  try {
    const fetched = await fetchWithRoom(work, inside);
    return await shared.locked(() => usage.publish(work, fetched));
  } catch (thrown) {
    await clearPart(shared.layout, work.key);
    throw thrown;
  }
}

/** A disk that turns out full while it is written to (others write there too) gets one more try, after evictions. */
async function fetchWithRoom(work: Work, inside: Inside): Promise<Fetched> {
  const { shared, room, usage } = inside;
  const { key } = work;
  let wanted = 1;
  const attempt = async (): Promise<Fetched> => {
    await makePart(shared.layout, key);
    return fetchFiles(work.spec, {
      ...inside,
      ...work,
      directory: shared.layout.part(key),
      reserve: async (bytes) => {
        wanted = bytes;
        await shared.locked(async () => {
          await room.reserve({ key, bytes, mayEvict: !work.isBackground(), nowMs: await usage.now() });
        });
      },
    });
  };
  try {
    return await attempt();
  } catch (thrown) {
    if (!isFull(thrown) || work.isBackground()) throw thrown;
    if ((await shared.locked(() => room.evict(key, wanted))) === 0) throw thrown;
    return attempt();
  }
}

function isFull(thrown: unknown): boolean {
  return isOutOfSpace(thrown) || (thrown instanceof PenstockError && thrown.code === "disk_full");
}
