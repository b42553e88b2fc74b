/**
 * Whether the client of a request has left before its answer was complete, and who wants to know when. What an
 * `AbortSignal` says, which is one of these, for a request that nearly always ends before anybody has asked.
 */
export interface Leaving {
  readonly aborted: boolean;
  addEventListener(event: "abort", listener: () => void, options?: { readonly once: true }): void;
  removeEventListener(event: "abort", listener: () => void): void;
}

/** One client that may leave. Each listener is called once. */
export class Leaver implements Leaving {
  aborted = false;
  #listeners: Set<() => void> | null = null;

  addEventListener(_: "abort", listener: () => void): void {
    this.#listeners ??= new Set();
    this.#listeners.add(listener);
  }

  removeEventListener(_: "abort", listener: () => void): void {
    this.#listeners?.delete(listener);
  }

  /** The client has left. */
  leave(): void {
    this.aborted = true;
    const listeners = this.#listeners;
    this.#listeners = null;
    for (const listener of listeners ?? []) listener();
  }
}
