import { lstat, open, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import type { SourceFile } from "../sources/source.ts";

const fileState = z.object({
  path: z.string(),
  sizeBytes: z.int().nonnegative(),
  etag: z.string().nullable(),
  sha256: z.string().nullable(),
  /** Where the ranges begin that are on disk. */
  done: z.array(z.int().nonnegative()).max(1_000_000),
});
const resumeState = z.object({
  version: z.literal(1),
  rangeBytes: z.int().positive(),
  files: z.array(fileState).max(10_000),
});

/** Bigger than any state that we write, smaller than what would hurt. */
const maxStateBytes = 64 * 2 ** 20;

/** Which ranges of a download are on disk: kept beside the partial files, so that a restart asks only for the rest. */
export class ResumeState {
  readonly #path: string;
  readonly #rangeBytes: number;
  readonly #files: readonly SourceFile[];
  readonly #done: ReadonlyMap<string, Set<number>>;

  private constructor(
    { path, rangeBytes, files }: { path: string; rangeBytes: number; files: readonly SourceFile[] },
    done: ReadonlyMap<string, Set<number>>,
  ) {
    this.#path = path;
    this.#rangeBytes = rangeBytes;
    this.#files = files;
    this.#done = done;
  }

  /**
   * Reads the state of an earlier try, if there is one. A file counts only when its size and its ETag (or its checksum)
   * are still the same and its partial file is still there; ranges of another length do not count.
   */
  static async load(about: {
    path: string;
    rangeBytes: number;
    files: readonly SourceFile[];
    workDirectory: string;
  }): Promise<ResumeState> {
    const done = new Map<string, Set<number>>(about.files.map((file) => [file.path, new Set()]));
    const earlier = await readState(about.path);
    if (earlier?.rangeBytes === about.rangeBytes) {
      const known = new Map(earlier.files.map((file) => [file.path, file]));
      for (const file of about.files) {
        const before = known.get(file.path);
        if (before === undefined || !sameContent(file, before)) continue;
        if (await isPartial(join(about.workDirectory, file.path), file.sizeBytes)) {
          done.set(file.path, new Set(before.done));
        }
      }
    }
    return new ResumeState(about, done);
  }

  has(path: string, start: number): boolean {
    return this.#done.get(path)?.has(start) ?? false;
  }

  add(path: string, start: number): void {
    this.#done.get(path)?.add(start);
  }

  /** Whether nothing of a file is there, so that its partial file starts anew. */
  isEmpty(path: string): boolean {
    return (this.#done.get(path)?.size ?? 0) === 0;
  }

  /** Which ranges are done now; later `add`s do not show in it. */
  snapshot(): string {
    const files = this.#files.map(({ path, sizeBytes, etag, sha256 }) => ({
      path,
      sizeBytes,
      etag,
      sha256,
      done: [...(this.#done.get(path) ?? [])],
    }));
    return JSON.stringify({ version: 1, rangeBytes: this.#rangeBytes, files } satisfies z.input<typeof resumeState>);
  }

  /** Puts a snapshot on disk, whole or not at all. Its ranges must have reached the disk before. */
  async save(snapshot: string): Promise<void> {
    const fresh = `${this.#path}.new`;
    {
      await using handle = await open(fresh, "w", 0o600);
      await handle.writeFile(snapshot);
      await handle.sync();
    }
    await rename(fresh, this.#path);
  }

  async remove(): Promise<void> {
    await rm(this.#path, { force: true });
    await rm(`${this.#path}.new`, { force: true });
  }
}

type Before = z.infer<typeof fileState>;

function sameContent(file: SourceFile, before: Before): boolean {
  if (file.sizeBytes !== before.sizeBytes) return false;
  if (file.sha256 !== null && before.sha256 !== null) return file.sha256 === before.sha256;
  return file.etag !== null && file.etag === before.etag;
}

async function isPartial(path: string, sizeBytes: number): Promise<boolean> {
  const about = await lstat(path).catch(() => undefined);
  return about?.isFile() === true && about.size === sizeBytes;
}

async function readState(path: string): Promise<z.infer<typeof resumeState> | undefined> {
  try {
    if ((await lstat(path)).size > maxStateBytes) return undefined;
    return resumeState.safeParse(JSON.parse(await readFile(path, "utf8"))).data;
  } catch {
    // No state, or one that a crash left broken: start over.
    return undefined;
  }
}
