/** One piece of work that many wait for. It ends early only when all of them have left. */
export class Flight<Progress, Result> {
  readonly #controller = new AbortController();
  readonly #listeners = new Set<(progress: Progress) => void>();
  readonly #result: Promise<Result>;
  #latest: Progress | undefined;

  constructor(work: (report: (progress: Progress) => void, signal: AbortSignal) => Promise<Result>) {
    this.#result = work((progress) => this.#report(progress), this.#controller.signal);
    // Everybody may have left; each one that waits handles the failure itself.
    this.#result.catch(() => undefined);
  }

  /** Whether all have left, so that nobody new may join. */
  get isEnding(): boolean {
    return this.#controller.signal.aborted;
  }

  /** Resolves once the work has ended in whatever way. */
  async ended(): Promise<void> {
    await this.#result.catch(() => undefined);
  }

  /**
   * Waits for the result, or leaves with the signal's reason. The last one to leave ends the work and waits until it has
   * wound down, so that afterwards nothing is written any more.
   */
  async join(onProgress: (progress: Progress) => void, signal: AbortSignal): Promise<Result> {
    // Each one is its own listener, even when two pass the same function.
    const listener = (progress: Progress): void => onProgress(progress);
    const { promise: left, reject } = Promise.withResolvers<never>();
    const leave = (): void => reject(signal.reason);
    signal.throwIfAborted();
    signal.addEventListener("abort", leave, { once: true });
    this.#listeners.add(listener);
    if (this.#latest !== undefined) listener(this.#latest);
    try {
      return await Promise.race([this.#result, left]);
    } finally {
      signal.removeEventListener("abort", leave);
      this.#listeners.delete(listener);
      if (this.#listeners.size === 0) {
        this.#controller.abort(new Error("nobody waits for this any more"));
        await this.ended();
      }
    }
  }

  #report(progress: Progress): void {
    this.#latest = progress;
    for (const listener of this.#listeners) listener(progress);
  }
}
