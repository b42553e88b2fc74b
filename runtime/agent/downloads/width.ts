/** Growth of the throughput that is worth twice the connections: a limit on each gives 2, noise on a busy machine 1.2. */
const worthwhile = 1.3;
/** Measurements until a settled width is tried again: networks change. */
const settledSamples = 40;

/**
 * How many ranges are under way at once: few at first, twice as many as long as that brings more bytes a second, and half as
 * many when the server says that it is too much. A server that limits each connection gets all that may be (measured with
 * 60 MiB/s each: 8 connections 0.49 GB/s, 16 0.73, 32 1.48); a fast one near by stays with a few.
 */
export class Width implements Disposable {
  readonly #most: number;
  readonly #timer: NodeJS.Timeout;
  #limit: number;
  #fill: () => void = () => undefined;
  #bytes = 0;
  #since = performance.now();
  /** Whether the measurement under way began with this width: connections take a while to come to speed. */
  #steady = false;
  /** Bytes a millisecond before the last rise. */
  #best = 0;
  /** The width that was enough before the last rise. */
  #before: number;
  /** Measurements until more connections are tried again. */
  #rest = 0;

  /** Measures every `probeMs`. */
  constructor({ first, most, probeMs }: { first: number; most: number; probeMs: number }) {
    this.#most = Math.max(1, most);
    this.#limit = Math.min(Math.max(1, first), this.#most);
    this.#before = this.#limit;
    this.#timer = setInterval(() => this.#measure(), probeMs);
  }

  get limit(): number {
    return this.#limit;
  }

  /** Called when there is room for more. */
  onGrow(fill: () => void): void {
    this.#fill = fill;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
  }

  /** The server says that it is too much: half as many, once for all that it refuses at a time. */
  shrink(): void {
    if (!this.#steady) return;
    this.#set(Math.max(1, Math.floor(this.#limit / 2)));
    this.#before = this.#limit;
    this.#rest = settledSamples;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #measure(): void {
    const now = performance.now();
    const speed = this.#bytes / (now - this.#since);
    this.#bytes = 0;
    this.#since = now;
    // Nothing to judge by: threads start, a server thinks, a network is down.
    if (speed === 0) return;
    if (this.#steady) this.#judge(speed);
    else this.#steady = true;
  }

  #judge(speed: number): void {
    if (this.#rest > 0) {
      this.#rest -= 1;
      if (this.#rest === 0) this.#raise(speed);
    } else if (speed > this.#best * worthwhile) this.#raise(speed);
    else {
      this.#rest = settledSamples;
      this.#set(this.#before);
    }
  }

  #raise(speed: number): void {
    this.#best = speed;
    this.#before = this.#limit;
    this.#set(Math.min(this.#most, this.#limit * 2));
  }

  #set(limit: number): void {
    if (limit === this.#limit) return;
    this.#limit = limit;
    this.#steady = false;
    this.#fill();
  }
}
