/**
 * One time by which something must have happened, moved often and seldom missed. To move it later costs the writing of a
 * number: the timer that runs looks again when it fires.
 */
export class Deadline {
  readonly #onMissed: () => void;
  #atMs = Infinity;
  #timer: NodeJS.Timeout | undefined;
  #firesAtMs = Infinity;

  constructor(onMissed: () => void) {
    this.#onMissed = onMissed;
  }

  /** From now on; replaces what was set before. */
  set(ms: number): void {
    this.#atMs = performance.now() + ms;
    if (this.#firesAtMs > this.#atMs) this.#arm(ms);
  }

  /** Until the next `set` there is none. */
  clear(): void {
    this.#atMs = Infinity;
  }

  /** There will be none any more. */
  stop(): void {
    this.clear();
    clearTimeout(this.#timer);
    this.#firesAtMs = Infinity;
  }

  #arm(ms: number): void {
    clearTimeout(this.#timer);
    this.#firesAtMs = performance.now() + ms;
    // Timers of Node take no more than 2^31 ms.
    this.#timer = setTimeout(() => this.#look(), Math.min(ms, 2 ** 31 - 1)).unref();
  }

  #look(): void {
    this.#firesAtMs = Infinity;
    const leftMs = this.#atMs - performance.now();
    if (leftMs === Infinity) return;
    if (leftMs > 0) {
      this.#arm(leftMs);
      return;
    }
    this.clear();
    this.#onMissed();
  }
}
