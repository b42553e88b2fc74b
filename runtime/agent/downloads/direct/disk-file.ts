import { close, constants, open, write } from "node:fs";
import { promisify } from "node:util";
import { pageBytes } from "./blocks.ts";

const openFile = promisify(open);
const closeFile = promisify(close);
const { O_WRONLY, O_DIRECT, O_NOFOLLOW } = constants;

/**
 * A file that is written past the page cache, where its file system can. No page of the cache has to be found and filled first:
 * on virtual machines with 2 cores 0.5 s of processor time a GB and 1.2 to 2.1 GB/s, where curl through the cache takes 1 to 4 s
 * a GB and makes 0.2 to 0.8 GB/s (`npm run bench:download`).
 */
export class DiskFile {
  readonly #plain: number;
  /** Undefined where the file system knows no O_DIRECT (tmpfs), or once it has refused a write. */
  #direct: number | undefined;

  private constructor(plain: number, direct: number | undefined) {
    this.#plain = plain;
    this.#direct = direct;
  }

  /** Opens a file that is there, never through a link. */
  static async open(path: string): Promise<DiskFile> {
    const plain = await openFile(path, O_WRONLY | O_NOFOLLOW);
    const direct = await openFile(path, O_WRONLY | O_NOFOLLOW | O_DIRECT).catch(() => undefined);
    return new DiskFile(plain, direct);
  }

  /** Writes bytes that begin at a page of memory. What does not fill pages goes through the page cache. */
  async write(bytes: Uint8Array, offset: number): Promise<void> {
    let done = 0;
    if (offset % pageBytes === 0) {
      const whole = bytes.length - (bytes.length % pageBytes);
      done = await this.#writeDirect(bytes.subarray(0, whole), offset);
    }
    while (done < bytes.length) done += await writeSome(this.#plain, bytes.subarray(done), offset + done);
  }

  async close(): Promise<void> {
    if (this.#direct !== undefined) await closeFile(this.#direct);
    await closeFile(this.#plain);
  }

  /** Bytes that went down; fewer than all where the file system would not take them this way. */
  async #writeDirect(bytes: Uint8Array, offset: number): Promise<number> {
    let done = 0;
    while (done < bytes.length && done % pageBytes === 0 && this.#direct !== undefined) {
      try {
        done += await writeSome(this.#direct, bytes.subarray(done), offset + done);
      } catch (thrown) {
        if (!(thrown instanceof Error) || !("code" in thrown) || thrown.code !== "EINVAL") throw thrown;
        // Disks with larger sectors, and file systems that only pretend.
        return done;
      }
    }
    return done;
  }
}

function writeSome(fd: number, bytes: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, bytes, 0, bytes.length, offset, (error, written) => {
      if (error === null) resolve(written);
      else reject(error);
    });
  });
}
