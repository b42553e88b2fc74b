import { join } from "node:path";
import type { SourceFile } from "../sources/source.ts";
import { PartFile } from "./part-file.ts";
import type { ResumeState } from "./resume.ts";
import type { Range } from "./transfer.ts";

interface PartsOptions {
  readonly files: readonly SourceFile[];
  readonly resume: ResumeState;
  readonly noteEveryMs: number;
}

/** The open partial files of a download, and the note of what is done. */
export class Parts implements AsyncDisposable {
  readonly #resume: ResumeState;
  readonly #noteEveryMs: number;
  readonly #parts = new Map<string, PartFile>();
  #notedAt = performance.now();
  #noting: Promise<void> | undefined;

  private constructor({ resume, noteEveryMs }: PartsOptions) {
    this.#resume = resume;
    this.#noteEveryMs = noteEveryMs;
  }

  /** Opens a partial file for each file of the listing, at its full length. */
  static async open(directory: string, options: PartsOptions): Promise<Parts> {
    const parts = new Parts(options);
    try {
      for (const { path, sizeBytes } of options.files) {
        const fresh = options.resume.isEmpty(path);
        parts.#parts.set(path, await PartFile.open(join(directory, path), { sizeBytes, fresh }));
      }
    } catch (thrown) {
      await parts.#close();
      throw thrown;
    }
    return parts;
  }

  of(file: SourceFile): PartFile {
    const part = this.#parts.get(file.path);
    if (part === undefined) throw new TypeError(`no part file for ${file.path}`);
    return part;
  }

  /** Marks a range as done, and notes that down from time to time. */
  finished({ file, start }: Range): void {
    this.#resume.add(file.path, start);
    if (this.#noting !== undefined || performance.now() - this.#notedAt < this.#noteEveryMs) return;
    this.#noting = this.#note()
      // A note that fails costs only a longer resume; a full disk shows in the transfer itself.
      .catch(() => undefined)
      .finally(() => {
        this.#noting = undefined;
        this.#notedAt = performance.now();
      });
  }

  /** Notes down ranges only once they are on the disk: after a power cut a noted range must not be a hole. */
  async #note(): Promise<void> {
    const snapshot = this.#resume.snapshot();
    await this.sync();
    await this.#resume.save(snapshot);
  }

  async #close(): Promise<void> {
    await Promise.all([...this.#parts.values()].map((part) => part.close()));
  }

  /** Waits until what was written is on the disk. */
  async sync(): Promise<void> {
    for (const part of this.#parts.values()) await part.sync();
  }

  /** Never throws: whatever ended the transfer is what callers shall see. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#noting;
    await this.#note().catch(() => undefined);
    await this.#close().catch(() => undefined);
  }
}
