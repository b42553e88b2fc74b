import type { FileHandle } from "node:fs/promises";

/** What is wrong with a file, in words for people. The reader throws nothing else about content. */
export class GgufFault extends Error {}

const windowBytes = 1 << 20;
/** A header of real models takes a few MiB: the vocabulary. */
const maxHeaderBytes = 512 * 2 ** 20;
const maxStringBytes = 16 * 2 ** 20;

/** Reads the little-endian values of a GGUF header one after another, never past the file's end or 512 MiB. */
export class GgufReader {
  readonly #handle: FileHandle;
  readonly #limit: number;
  #window = Buffer.alloc(0);
  /** Offset of the window in the file, and of the cursor in the window. */
  #windowStart = 0;
  #cursor = 0;

  constructor(handle: FileHandle, fileBytes: number) {
    this.#handle = handle;
    this.#limit = Math.min(fileBytes, maxHeaderBytes);
  }

  /** Bytes read so far. */
  get position(): number {
    return this.#windowStart + this.#cursor;
  }

  async u32(): Promise<number> {
    return (await this.#take(4)).readUInt32LE();
  }

  /** A 64-bit count or offset. Throws when it is larger than `max`. */
  async u64(what: string, max = Number.MAX_SAFE_INTEGER): Promise<number> {
    const value = (await this.#take(8)).readBigUInt64LE();
    if (value > BigInt(max)) throw new GgufFault(`its ${what} of ${value} is more than the limit of ${max}`);
    return Number(value);
  }

  async string(what: string, maxBytes = maxStringBytes): Promise<string> {
    const length = await this.u64(`length of a ${what}`, maxBytes);
    return (await this.#take(length)).toString("utf8");
  }

  async skipString(): Promise<void> {
    await this.skip(await this.u64("length of a string", maxStringBytes));
  }

  async skip(bytes: number): Promise<void> {
    this.#require(bytes);
    if (this.#cursor + bytes <= this.#window.length) {
      this.#cursor += bytes;
      return;
    }
    this.#windowStart = this.position + bytes;
    this.#window = Buffer.alloc(0);
    this.#cursor = 0;
  }

  async #take(bytes: number): Promise<Buffer> {
    this.#require(bytes);
    if (this.#cursor + bytes > this.#window.length) await this.#fill(bytes);
    const start = this.#cursor;
    this.#cursor += bytes;
    return this.#window.subarray(start, this.#cursor);
  }

  async #fill(bytes: number): Promise<void> {
    const start = this.position;
    const window = Buffer.allocUnsafe(Math.min(Math.max(bytes, windowBytes), this.#limit - start));
    const { bytesRead } = await this.#handle.read(window, 0, window.length, start);
    if (bytesRead < bytes) throw new GgufFault("it ends inside its header");
    this.#windowStart = start;
    this.#window = window.subarray(0, bytesRead);
    this.#cursor = 0;
  }

  #require(bytes: number): void {
    if (this.position + bytes > this.#limit) throw new GgufFault("it ends inside its header");
  }
}
