import { createReadStream } from "node:fs";
import { mkdir, open, rename, rm, stat, type FileHandle } from "node:fs/promises";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { usageRecord, type UsageRecord, type UsageSink } from "./record.ts";

export interface UsageFileOptions {
  /** The newest file. Older ones are beside it: `<path>.1`, `<path>.2`, ... */
  readonly path: string;
  /** A file that has reached this is set aside. */
  readonly maxBytes: number;
  /** Files that are kept, the newest among them. */
  readonly maxFiles: number;
}

/** Usage as JSON lines, in files of a bounded size and number. */
export class UsageFile implements UsageSink {
  readonly #options: UsageFileOptions;
  #file: FileHandle | null = null;
  #size = 0;

  constructor(options: UsageFileOptions) {
    this.#options = options;
  }

  /** Writes a line for each record and waits until the disk has them. One call at a time. */
  async append(records: readonly UsageRecord[]): Promise<void> {
    const bytes = Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(""));
    const file = await this.#open();
    try {
      await file.appendFile(bytes);
      await file.datasync();
    } catch (error) {
      // Part of a line may be there; opening the file anew ends it.
      await this.close();
      throw error;
    }
    this.#size += bytes.length;
    if (this.#size >= this.#options.maxBytes) await this.#rotate();
  }

  async close(): Promise<void> {
    await this.#file?.close();
    this.#file = null;
  }

  async #open(): Promise<FileHandle> {
    if (this.#file !== null) return this.#file;
    const { path } = this.#options;
    await mkdir(dirname(path), { recursive: true });
    const file = await open(path, "a+", 0o600);
    const { size } = await file.stat();
    // A crash may have left a torn line: ending it keeps it from swallowing the next one.
    const last = Buffer.alloc(1);
    if (size > 0) await file.read(last, 0, 1, size - 1);
    const torn = size > 0 && last[0] !== 0x0a;
    if (torn) await file.appendFile("\n");
    this.#size = size;
    this.#file = file;
    return file;
  }

  async #rotate(): Promise<void> {
    await this.close();
    const { path, maxFiles } = this.#options;
    const names = [path, ...Array.from({ length: maxFiles - 1 }, (_, index) => `${path}.${index + 1}`)];
    await rm(names.at(-1) ?? path, { force: true });
    for (let index = names.length - 2; index >= 0; index -= 1) {
      const from = names[index] ?? path;
      const exists = await stat(from).then(
        () => true,
        () => false,
      );
      if (exists) await rename(from, names[index + 1] ?? path);
    }
  }
}

/**
 * The records of one file, the oldest first. Lines that are no records, such as one that a crash tore, are passed over;
 * `onBroken` hears of each by its number.
 */
export async function* readUsageFile(path: string, onBroken?: (line: number) => void): AsyncGenerator<UsageRecord> {
  const lines = createInterface({ input: createReadStream(path, "utf8"), crlfDelay: Number.POSITIVE_INFINITY });
  let number = 0;
  for await (const line of lines) {
    number += 1;
    const record = parseLine(line);
    if (record !== null) yield record;
    else onBroken?.(number);
  }
}

function parseLine(line: string): UsageRecord | null {
  try {
    return usageRecord.parse(JSON.parse(line));
  } catch {
    return null;
  }
}
