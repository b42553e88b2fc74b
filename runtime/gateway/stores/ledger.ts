import type { Usage, UsageEntry } from "./record.ts";

/** When and how much the ledger writes. */
export interface LedgerOptions {
  /** What a killed process may lose. */
  readonly flushIntervalMs?: number;
  /** A batch of so many is written at once, and so is one in one transaction at most. */
  readonly batchEntries?: number;
  /** Kept while the store cannot be reached; beyond that the oldest are lost, and counted. */
  readonly maxEntries?: number;
  readonly onError: (error: unknown) => void;
}

/** SQLite writes so many in little more than a millisecond, in which nothing else runs. */
const defaultBatchEntries = 200;

/** A closing gateway tries so often to write what it has. */
const closingAttempts = 3;

/**
 * The way to the usage ledger that no request waits for: entries are kept here and written in batches. Dispose writes
 * what is left. A killed process loses the entries of the last interval, at most.
 */
export class UsageLedger implements AsyncDisposable {
  readonly #store: Pick<Usage, "appendUsage">;
  readonly #batchEntries: number;
  readonly #maxEntries: number;
  readonly #onError: (error: unknown) => void;
  readonly #timer: NodeJS.Timeout;
  #waiting: UsageEntry[] = [];
  #writing: Promise<boolean> | undefined;
  #lost = 0;

  constructor(store: Pick<Usage, "appendUsage">, options: LedgerOptions) {
    this.#store = store;
    this.#batchEntries = options.batchEntries ?? defaultBatchEntries;
    this.#maxEntries = options.maxEntries ?? 100_000;
    this.#onError = options.onError;
    this.#timer = setInterval(() => void this.flush(), options.flushIntervalMs ?? 1_000).unref();
  }

  /** Entries that are not written yet, and those that never will be. */
  get backlog(): { readonly waiting: number; readonly lost: number } {
    return { waiting: this.#waiting.length, lost: this.#lost };
  }

  append(entry: UsageEntry): void {
    this.#waiting.push(entry);
    const over = this.#waiting.length - this.#maxEntries;
    // Many at a time, as moving the rest of a long list is dear.
    if (over > this.#maxEntries / 10) {
      this.#waiting.splice(0, over);
      this.#lost += over;
    }
    // A store that fails is left alone until the next interval.
    if (this.#waiting.length === this.#batchEntries) void this.flush();
  }

  /** Writes what is there now; false when the store refused. */
  async flush(): Promise<boolean> {
    this.#writing ??= this.#write().finally(() => (this.#writing = undefined));
    return await this.#writing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    for (let attempt = 0; attempt < closingAttempts && this.#waiting.length > 0; attempt += 1) await this.flush();
    this.#lost += this.#waiting.length;
    this.#waiting = [];
  }

  async #write(): Promise<boolean> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.slice(0, this.#batchEntries);
      try {
        await this.#store.appendUsage(batch);
      } catch (error) {
        this.#onError(error);
        return false;
      }
      // Some of the batch may have made room meanwhile.
      const last = batch.at(-1);
      const end = last === undefined ? -1 : this.#waiting.indexOf(last);
      this.#waiting.splice(0, end + 1);
    }
    return true;
  }
}
