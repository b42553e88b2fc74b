import { PenstockError } from "../contracts/errors.ts";

interface GateLimits {
  /** Requests that are worked on at once. */
  readonly concurrent: number;
  /** Requests that may wait beyond those. */
  readonly queue: number;
}

/** Weight of the newest request in the running mean of durations. */
const newest = 0.2;

/** Lets in as many requests as the engine may work on; the next ones wait in order; the rest are refused at once. */
export class Gate {
  readonly limits: GateLimits;
  readonly #waiting: (() => void)[] = [];
  #running = 0;
  #onIdle: (() => void) | undefined;
  /** Running mean of how long requests take; undefined until one has ended. */
  #meanMs: number | undefined;

  constructor(limits: GateLimits) {
    this.limits = limits;
  }

  /** Requests that are being worked on. */
  get running(): number {
    return this.#running;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Enters, perhaps after a wait. The result leaves again; call it once. Throws `queue_full` or `client_closed`. */
  async enter(signal: AbortSignal): Promise<() => void> {
    if (signal.aborted) throw new PenstockError("client_closed", "The client left.");
    if (this.#running < this.limits.concurrent) {
      this.#running += 1;
    } else {
      if (this.#waiting.length >= this.limits.queue) throw this.#full();
      await this.#wait(signal);
    }
    const began = performance.now();
    return () => this.#leave(performance.now() - began);
  }

  /** Resolves once nothing runs or waits, or after `deadlineMs`. */
  async whenIdle(deadlineMs: number): Promise<void> {
    if (this.#running === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#onIdle = resolve;
    const timer = setTimeout(resolve, deadlineMs);
    await promise;
    clearTimeout(timer);
  }

  /** Seconds until a place in the queue should be free, from how long requests took so far. */
  retryAfterSeconds(): number {
    const ahead = this.#waiting.length + 1;
    return Math.max(1, Math.ceil(((this.#meanMs ?? 1000) * ahead) / this.limits.concurrent / 1000));
  }

  #full(): PenstockError {
    const seconds = this.retryAfterSeconds();
    const message = `${this.#running} requests run and ${this.#waiting.length} wait; try again in about ${seconds} s.`;
    return new PenstockError("queue_full", message, { retryAfterSeconds: seconds });
  }

  async #wait(signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const leave = (): void => {
      const index = this.#waiting.indexOf(resolve);
      if (index >= 0) this.#waiting.splice(index, 1);
      reject(new PenstockError("client_closed", "The client left."));
    };
    this.#waiting.push(resolve);
    signal.addEventListener("abort", leave, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener("abort", leave);
    }
  }

  #leave(elapsedMs: number): void {
    this.#meanMs = this.#meanMs === undefined ? elapsedMs : this.#meanMs * (1 - newest) + elapsedMs * newest;
    const next = this.#waiting.shift();
    // The place passes on to the next one without being free in between, so that nobody overtakes.
    if (next !== undefined) return next();
    this.#running -= 1;
    if (this.#running === 0) this.#onIdle?.();
  }
}
