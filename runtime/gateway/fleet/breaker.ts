/** Requests in a row that fail before an agent is left alone. */
const failuresAllowed = 3;
const firstPauseMs = 1_000;
/** No agent is left alone for longer. */
export const longestPauseMs = 30_000;

/** Leaves an agent alone whose requests fail although its heartbeats come. On the monotonic clock. */
export class Breaker {
  #failures = 0;
  #opened = 0;
  #until = 0;
  #doubtedUntil = 0;

  /** Whether a request may go there. After the pause one may, and its outcome decides. */
  get isClosed(): boolean {
    return performance.now() >= this.#until;
  }

  /** What is left of the pause. */
  get pausedMs(): number {
    return Math.max(0, this.#until - performance.now());
  }

  /** Whether it was open for another gateway, or before a restart: the agent is used only where there is no other. */
  get isDoubted(): boolean {
    return performance.now() < this.#doubtedUntil;
  }

  /** Doubts the agent for that long, or until a request succeeds there. */
  doubt(ms: number): void {
    this.#doubtedUntil = performance.now() + Math.min(longestPauseMs, ms);
  }

  succeeded(): void {
    this.#failures = 0;
    this.#opened = 0;
    this.#until = 0;
    this.#doubtedUntil = 0;
  }

  failed(): void {
    this.#failures += 1;
    if (this.#failures < failuresAllowed) return;
    this.#until = performance.now() + Math.min(longestPauseMs, firstPauseMs * 2 ** this.#opened);
    this.#opened += 1;
  }
}
