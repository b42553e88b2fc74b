/** Fetches that requests wait for go before those in the background: a background fetch breaks off and goes on later. */
export class Priority {
  readonly #background = new Set<AbortController>();
  #foreground = 0;
  #idle = Promise.withResolvers<void>();

  constructor() {
    this.#idle.resolve();
  }

  /** A fetch that somebody waits for, until it is disposed of. */
  foreground(): Disposable {
    if (this.#foreground === 0) this.#idle = Promise.withResolvers<void>();
    this.#foreground += 1;
    for (const controller of this.#background) controller.abort(new Error("a request goes first"));
    return {
      [Symbol.dispose]: () => {
        this.#foreground -= 1;
        if (this.#foreground === 0) this.#idle.resolve();
      },
    };
  }

  /** Does background work while no fetch is in the foreground, again after each one that came in between. */
  async background<T>(work: (signal: AbortSignal) => Promise<T>, signal: AbortSignal): Promise<T> {
    const { promise: left, reject } = Promise.withResolvers<never>();
    left.catch(() => undefined);
    const leave = (): void => reject(signal.reason);
    signal.throwIfAborted();
    signal.addEventListener("abort", leave, { once: true });
    try {
      for (;;) {
        while (this.#foreground > 0) await Promise.race([this.#idle.promise, left]);
        const pause = new AbortController();
        this.#background.add(pause);
        try {
          return await work(AbortSignal.any([signal, pause.signal]));
        } catch (thrown) {
          if (signal.aborted || !pause.signal.aborted) throw thrown;
        } finally {
          this.#background.delete(pause);
        }
      }
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }
}
