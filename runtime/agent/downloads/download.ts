import { lstat, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SourceError } from "../sources/errors.ts";
import { checkNames } from "../sources/names.ts";
import type { Source, SourceFile } from "../sources/source.ts";
import { DirectTransfers, type FallbackReason } from "./direct-transfers.ts";
import { inParallel } from "./parallel.ts";
import { tryClone } from "./part-file.ts";
import { Parts } from "./parts.ts";
import { Meter, type DownloadProgress } from "./progress.ts";
import { ResumeState } from "./resume.ts";
import { diskFull, freeBytes, isOutOfSpace } from "./space.ts";
import { planRanges, transferRange, type Range, type TransferLimits } from "./transfer.ts";
import { verifyFiles } from "./verify.ts";
import { Width } from "./width.ts";

/** Bounds of a download. */
export interface DownloadLimits extends TransferLimits {
  /** The most ranges under way at once, over all files. */
  readonly connections: number;
  /** How many there are at first; more come while they bring more. */
  readonly firstConnections: number;
  /** How often it is looked at whether more connections bring more. */
  readonly probeMs: number;
  readonly rangeBytes: number;
  /** Smaller files are not worth the threads of the fast path, which take about 0.1 s to start. */
  readonly directFromBytes: number;
  /** How often finished ranges are noted down: what a crash may cost. */
  readonly noteEveryMs: number;
}

/**
 * Right for object stores, which limit each connection: measured against a server with 60 MiB/s per connection,
 * 8 connections gave 0.49 GB/s, 16 gave 0.73, 32 gave 1.48, and ranges of 8 to 64 MiB made no difference. Three blocks
 * (`blocks.ts`) a range: then the ranges of 8 connections are in memory together when their bytes are hashed in order.
 */
export const defaultLimits: DownloadLimits = {
  connections: 32,
  firstConnections: 4,
  probeMs: 250,
  rangeBytes: 9 * 2 ** 20,
  directFromBytes: 8 * 2 ** 20,
  noteEveryMs: 5_000,
  attempts: 6,
  retryBaseMs: 250,
  retryMaxMs: 10_000,
  stallTimeoutMs: 30_000,
};

/** What to download, and where to. */
export interface DownloadOptions {
  readonly source: Source;
  readonly files: readonly SourceFile[];
  /** Where the files shall be; must not exist. Until then all is in `<directory>.part`. */
  readonly directory: string;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
  readonly limits?: Partial<DownloadLimits> | undefined;
  /** Hears of files that do not come over plain sockets straight to disk, and why. */
  readonly onFallback?: ((file: SourceFile, reason: FallbackReason) => void) | undefined;
  /** Free bytes of the disk; for tests. */
  readonly freeBytes?: ((directory: string) => Promise<number>) | undefined;
}

interface Job extends DownloadOptions {
  readonly work: string;
  readonly limits: DownloadLimits;
  readonly resume: ResumeState;
  readonly width: Width;
}

/** What is to be transferred. */
interface Plan {
  readonly files: readonly SourceFile[];
  readonly onDisk: readonly Range[];
  readonly missing: readonly Range[];
}

/**
 * Brings files to disk by parallel byte ranges, checks lengths and checksums, and makes them visible at once by a rename.
 *
 * After an abort, a crash or a broken network `<directory>.part` and `<directory>.part.json` stay: the next call asks only
 * for the ranges that are missing. After a full disk, a wrong checksum or a replaced file they are removed.
 * Throws `source_not_found`, `source_denied`, `source_failed`, `disk_full`, `checksum_mismatch`, or the signal's reason.
 */
export async function download(options: DownloadOptions): Promise<void> {
  const { source, files, directory, signal } = options;
  signal.throwIfAborted();
  checkNames(files, source.uri);
  const limits = { ...defaultLimits, ...options.limits };
  const work = `${directory}.part`;
  await mkdir(work, { recursive: true });
  const resume = await ResumeState.load({
    path: `${work}.json`,
    rangeBytes: limits.rangeBytes,
    files,
    workDirectory: work,
  });
  using width = new Width({ first: limits.firstConnections, most: limits.connections, probeMs: limits.probeMs });
  const job: Job = { ...options, limits, work, resume, width };
  try {
    await transferAndVerify(job);
  } catch (thrown) {
    if (isWorthless(thrown)) await discard(job);
    if (!isOutOfSpace(thrown)) throw thrown;
    throw diskFull({ needed: bytesOf(files), free: await freeBytes(dirname(directory)), cause: thrown });
  }
  await syncDirectory(work);
  await rename(work, directory);
  await syncDirectory(dirname(directory));
  await resume.remove();
}

/** Whether what has landed is of no use to a later try: only breaks and aborts leave good ranges behind. */
function isWorthless(thrown: unknown): boolean {
  if (isOutOfSpace(thrown)) return true;
  if (thrown instanceof SourceError) return thrown.retry === "start_over";
  return (
    thrown instanceof Error && "code" in thrown && (thrown.code === "disk_full" || thrown.code === "checksum_mismatch")
  );
}

async function discard({ work, resume }: Job): Promise<void> {
  await resume.remove();
  await rm(work, { recursive: true, force: true });
}

async function transferAndVerify(job: Job): Promise<void> {
  const { files, resume, onFallback = () => undefined } = job;
  const cloned = await cloneLocal(job);
  const rest = files.filter((file) => !cloned.has(file.path));
  const ranges = planRanges(rest, job.limits.rangeBytes);
  const isThere = ({ file, start }: Range): boolean => resume.has(file.path, start);
  const missing = ranges.filter((range) => !isThere(range));
  const plan: Plan = { files: rest, onDisk: ranges.filter(isThere), missing };
  await using direct = new DirectTransfers({ ...job, ...plan, onFallback });
  await transferAll(job, plan, direct);
  await verifyFiles(files, {
    ...job,
    directory: job.work,
    uri: job.source.uri,
    arrived: (path, hooks) => direct.sumOf(path, hooks),
  });
}

async function transferAll(job: Job, { files, missing }: Plan, direct: DirectTransfers): Promise<void> {
  const { limits, resume, work, width } = job;
  const bytesTotal = bytesOf(job.files);
  const bytesMissing = missing.reduce((sum, { start, end }) => sum + end - start, 0);
  await requireSpace(job, bytesMissing);
  using meter = new Meter({ phase: "download", bytesTotal, alreadyDone: bytesTotal - bytesMissing }, job.onProgress);
  await using parts = await Parts.open(work, {
    files,
    resume,
    noteEveryMs: limits.noteEveryMs,
  });
  const onBytes = (bytes: number): void => {
    meter.add(bytes);
    width.add(bytes);
  };
  await inParallel(missing, {
    width,
    signal: job.signal,
    run: async (range, signal) => {
      const start = await direct.transfer(range, { signal, onBytes });
      const part = parts.of(range.file);
      if (start < range.end) await transferRange({ ...range, start }, { ...job, part, signal, onBytes });
      parts.finished(range);
    },
  });
  await parts.sync();
}

function bytesOf(files: readonly SourceFile[]): number {
  return files.reduce((sum, file) => sum + file.sizeBytes, 0);
}

async function requireSpace({ freeBytes: measure = freeBytes, work }: Job, needed: number): Promise<void> {
  const free = await measure(work);
  if (needed > free) throw diskFull({ needed, free });
}

/** Clones what lies on the same file system; answers the paths that need no transfer any more. */
async function cloneLocal({ files, work, resume }: Job): Promise<ReadonlySet<string>> {
  const cloned = new Set<string>();
  for (const { path, localPath, sizeBytes } of files) {
    if (localPath === undefined || !resume.isEmpty(path)) continue;
    const target = join(work, path);
    if (!(await tryClone(localPath, target))) break;
    if ((await lstat(target)).size === sizeBytes) cloned.add(path);
  }
  return cloned;
}

async function syncDirectory(path: string): Promise<void> {
  await using handle = await open(path, "r");
  await handle.sync();
}
