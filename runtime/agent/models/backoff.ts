import type { PenstockError } from "../../contracts/errors.ts";

/** The first try again is free: people mend a model and ask at once. From then on the pause doubles. */
const firstPauseMs = 1_000;
const longestPauseMs = 60_000;

/** An engine that served this long had a good start; what happens to it later is another story. */
const forgivenAfterMs = 5 * 60_000;

/** Failures of one model in a row, and how long to leave it alone. On the monotonic clock. */
export class Backoff {
  #count = 0;
  #until = 0;
  #error: PenstockError | null = null;
  #goodSince: number | null = null;

  get count(): number {
    return this.#count;
  }

  /** Milliseconds until the next try makes sense. */
  get waitMs(): number {
    return Math.max(0, this.#until - performance.now());
  }

  /** The last failure, while its pause lasts. */
  get pending(): PenstockError | null {
    return this.waitMs > 0 ? this.#error : null;
  }

  /** Notes a failure, or the end of an engine that had served. */
  failed(error: PenstockError): void {
    if (this.#goodSince !== null && performance.now() - this.#goodSince > forgivenAfterMs) this.#count = 0;
    this.#goodSince = null;
    this.#count += 1;
    this.#error = error;
    const pause = this.#count === 1 ? 0 : Math.min(longestPauseMs, firstPauseMs * 2 ** (this.#count - 2));
    this.#until = performance.now() + pause;
  }

  /** Notes that the model serves. The failures before are forgotten once it has served for a while. */
  served(): void {
    this.#goodSince = performance.now();
    this.#error = null;
    this.#until = 0;
  }

  reset(): void {
    this.#count = 0;
    this.#until = 0;
    this.#error = null;
    this.#goodSince = null;
  }
}
