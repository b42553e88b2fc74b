/** Requests in a row that fail before an agent is left alone. */
const failuresAllowed = 3;
const firstPauseMs = 1_000;
const longestPauseMs = 30_000;

/** Leaves an agent alone whose requests fail although its heartbeats come. On the monotonic clock. */
export class Breaker {
  #failures = 0;
  #opened = 0;
  #until = 0;

  /** Whether a request may go there. After the pause one may, and its outcome decides. */
  get isClosed(): boolean {
    return performance.now() >= this.#until;
  }

  succeeded(): void {
    this.#failures = 0;
    this.#opened = 0;
    this.#until = 0;
  }

  failed(): void {
    this.#failures += 1;
    if (this.#failures < failuresAllowed) return;
    this.#until = performance.now() + Math.min(longestPauseMs, firstPauseMs * 2 ** this.#opened);
    this.#opened += 1;
  }
}
