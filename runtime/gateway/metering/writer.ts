import type { Logger } from "../../lib/log.ts";
import type { UsageOutlet } from "./metering.ts";
import type { UsageRecord, UsageSink } from "./record.ts";

export interface WriterOptions {
  /** Records in one call of the sink. */
  readonly maxBatch: number;
  /** How long a record waits for others. */
  readonly intervalMs: number;
  /** Records that wait while the sink fails, more than a batch; further ones push out the oldest. */
  readonly maxWaiting: number;
}

/** What suits a database: some calls a second at most, and some minutes of a busy gateway while it is away. */
export const defaultWriterOptions: WriterOptions = { maxBatch: 500, intervalMs: 500, maxWaiting: 100_000 };

/** Gives records to a sink in batches, one call at a time, and again when it fails. Requests never wait for it. */
export class UsageWriter implements UsageOutlet {
  /** Records that were given up because the sink failed for too long. */
  lost = 0;
  readonly #sink: UsageSink;
  readonly #options: WriterOptions;
  readonly #log: Logger;
  #waiting: UsageRecord[] = [];
  #timer: NodeJS.Timeout | null = null;
  #flushing: Promise<boolean> | null = null;
  #closed = false;

  constructor(sink: UsageSink, log: Logger, options: WriterOptions = defaultWriterOptions) {
    this.#sink = sink;
    this.#log = log;
    this.#options = options;
  }

  /** Records that the sink does not have yet. */
  get waiting(): number {
    return this.#waiting.length;
  }

  write(record: UsageRecord): void {
    this.#waiting.push(record);
    if (this.#waiting.length > this.#options.maxWaiting) {
      // Only what no call of the sink is busy with, so that a batch stays the front of the queue.
      this.#waiting.splice(this.#options.maxBatch, 1);
      this.lost += 1;
      if (this.lost === 1) this.#log.error("usage records are lost: the store takes none; see its errors above");
    }
    // A whole batch waits no longer: records that grow old are copied by each collection of garbage.
    if (this.#waiting.length === this.#options.maxBatch) this.#start(0);
    else if (this.#timer === null) this.#start(this.#options.intervalMs);
  }

  /** Gives everything to the sink. Resolves to false when that failed; the records keep waiting then. */
  flush(): Promise<boolean> {
    this.#flushing ??= this.#flushAll().finally(() => (this.#flushing = null));
    return this.#flushing;
  }

  /** Flushes for the last time. Records that the sink does not take now are lost, and logged as such. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer ?? undefined);
    await this.flush();
    // A flush that was under way may have ended before the newest record came.
    if (this.#waiting.length > 0) await this.flush();
    if (this.#waiting.length > 0) this.#log.error({ records: this.#waiting.length }, "usage records are lost at stop");
  }

  async #onTimer(): Promise<void> {
    this.#timer = null;
    if (!(await this.flush())) this.#start(this.#options.intervalMs);
  }

  #start(delayMs: number): void {
    if (this.#closed) return;
    clearTimeout(this.#timer ?? undefined);
    this.#timer = setTimeout(() => void this.#onTimer(), delayMs);
  }

  async #flushAll(): Promise<boolean> {
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.slice(0, this.#options.maxBatch);
      try {
        await this.#sink.append(batch);
      } catch (error) {
        this.#log.warn({ err: error, waiting: this.#waiting.length }, "usage records wait: the store failed");
        return false;
      }
      this.#waiting.splice(0, batch.length);
    }
    return true;
  }
}
