import type { DownloadProgress } from "../../../runtime/agent/downloads/progress.ts";
import { formatBytes } from "../../../runtime/lib/bytes.ts";

/** Draws a copy's progress on a terminal in place; elsewhere a line every tenth of the way, so that logs stay readable. */
export class TransferDisplay {
  readonly #stream: NodeJS.WriteStream;
  readonly #name: string;
  #tenths = -1;

  constructor(stream: NodeJS.WriteStream, name: string) {
    this.#stream = stream;
    this.#name = name;
  }

  show({ bytesDone, bytesTotal, bytesPerSecond, etaSeconds }: DownloadProgress): void {
    const part = bytesTotal === 0 ? 1 : bytesDone / bytesTotal;
    const left = etaSeconds === null || etaSeconds === 0 ? "" : `  ${etaSeconds} s left`;
    const line = `${this.#name}: ${Math.floor(100 * part)} % of ${formatBytes(bytesTotal)}  ${formatBytes(bytesPerSecond)}/s${left}`;
    if (this.#stream.isTTY) this.#stream.write(`\r\u001B[2K${line.slice(0, this.#stream.columns - 1)}`);
    else if (Math.floor(part * 10) > this.#tenths) this.#stream.write(`${line}\n`);
    this.#tenths = Math.floor(part * 10);
  }

  /** Leaves the line free for what comes next. */
  clear(): void {
    if (this.#stream.isTTY) this.#stream.write("\r\u001B[2K");
  }
}
