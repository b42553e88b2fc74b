import { constants } from "node:fs";
import { copyFile, mkdir, open, rm, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";

/** Chunks are gathered to this much before they are written: sources give 64 KiB, and each write costs a thread hop. */
const writeBytes = 1 << 20;

/** A file that ranges are written into, at their offsets. */
export class PartFile {
  readonly #handle: FileHandle;

  private constructor(handle: FileHandle) {
    this.#handle = handle;
  }

  /** Opens the file at its full length. Never through a link: what lies there may be somebody else's. */
  static async open(path: string, { sizeBytes, fresh }: { sizeBytes: number; fresh: boolean }): Promise<PartFile> {
    await mkdir(dirname(path), { recursive: true });
    if (fresh) await rm(path, { force: true });
    const { O_RDWR, O_CREAT, O_NOFOLLOW } = constants;
    const handle = await open(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o644);
    try {
      await handle.truncate(sizeBytes);
    } catch (thrown) {
      await handle.close();
      throw thrown;
    }
    return new PartFile(handle);
  }

  /** A writer from `start` on that gathers chunks; call `flush` at the end. `onWritten` hears of bytes that are down. */
  writer(start: number, onWritten: (bytes: number) => void): RangeWriter {
    return new RangeWriter(this.#handle, { start, onWritten });
  }

  /** Waits until what was written is on the disk. */
  async sync(): Promise<void> {
    await this.#handle.datasync();
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

/** Writes one range in order. */
export class RangeWriter {
  readonly #handle: FileHandle;
  readonly #onWritten: (bytes: number) => void;
  #position: number;
  #chunks: Uint8Array[] = [];
  #gathered = 0;

  constructor(handle: FileHandle, { start, onWritten }: { start: number; onWritten: (bytes: number) => void }) {
    this.#handle = handle;
    this.#position = start;
    this.#onWritten = onWritten;
  }

  async write(chunk: Uint8Array): Promise<void> {
    this.#chunks.push(chunk);
    this.#gathered += chunk.length;
    if (this.#gathered >= writeBytes) await this.flush();
  }

  async flush(): Promise<void> {
    let chunks = this.#chunks;
    this.#chunks = [];
    this.#gathered = 0;
    while (chunks.length > 0) {
      const { bytesWritten } = await this.#handle.writev(chunks, this.#position);
      this.#position += bytesWritten;
      this.#onWritten(bytesWritten);
      chunks = rest(chunks, bytesWritten);
    }
  }
}

/** What a short write (a disk about to be full) left over. */
function rest(chunks: readonly Uint8Array[], written: number): Uint8Array[] {
  let skip = written;
  const left: Uint8Array[] = [];
  for (const chunk of chunks) {
    if (skip < chunk.length) left.push(chunk.subarray(skip));
    skip = Math.max(0, skip - chunk.length);
  }
  return left;
}

/** Clones a file of this machine without copying bytes. Answers false where the file system cannot, or not across disks. */
export async function tryClone(from: string, to: string): Promise<boolean> {
  try {
    await mkdir(dirname(to), { recursive: true });
    await rm(to, { force: true });
    await copyFile(from, to, constants.COPYFILE_FICLONE_FORCE);
    return true;
  } catch {
    return false;
  }
}
