import { setTimeout as delay } from "node:timers/promises";
import { PenstockError } from "../../contracts/errors.ts";
import { Layout } from "./layout.ts";
import { FileLock, type LockMode } from "./lock.ts";

const pollMs = 5;

/** Longer than it takes to delete a few large models, which is the longest thing that is done under the lock. */
const defaultTimeoutMs = 60_000;

/**
 * A directory that several agents share. What concerns more than one entry (sizes, evictions, publishing) happens under
 * its lock; an entry's own lock says who uses, fetches or removes it, and is asked for under the directory's lock too.
 */
export class SharedDirectory {
  readonly layout: Layout;
  readonly #timeoutMs: number;

  constructor(root: string, timeoutMs = defaultTimeoutMs) {
    this.layout = new Layout(root);
    this.#timeoutMs = timeoutMs;
  }

  /** Runs `work` while nobody else, in this process or another, runs such work. Not to be nested. */
  async locked<T>(work: () => Promise<T>): Promise<T> {
    using _lock = await this.#take();
    return await work();
  }

  /** An entry's lock, or undefined when others are in the way. Its holder may let go of it at any time. */
  tryLock(key: string, mode: LockMode): FileLock | undefined {
    return FileLock.try(this.layout.lock(key), mode);
  }

  async #take(): Promise<FileLock> {
    const started = performance.now();
    for (;;) {
      const lock = FileLock.try(this.layout.directoryLock, "remove");
      if (lock !== undefined) return lock;
      if (performance.now() - started > this.#timeoutMs) {
        throw new PenstockError(
          "model_in_use",
          `Another agent has had the model cache locked for ${Math.round(this.#timeoutMs / 1_000)} s. ` +
            "Stop that agent if it hangs, and try again.",
          { retryAfterSeconds: 5 },
        );
      }
      await delay(pollMs);
    }
  }
}
