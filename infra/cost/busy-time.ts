/** Spans that are kept apart before they are joined where they meet. */
const maxLoose = 4096;

type Span = [startMs: number, endMs: number];

/** Adds up the time in which at least one of many spans was going on. Spans come in about the order of their ends. */
export class BusyTime {
  #joined: Span[] = [];
  #loose: Span[] = [];

  add(startMs: number, endMs: number): void {
    this.#loose.push([startMs, endMs]);
    if (this.#loose.length >= maxLoose) this.#join();
  }

  seconds(): number {
    this.#join();
    return this.#joined.reduce((sum, [startMs, endMs]) => sum + (endMs - startMs), 0) / 1000;
  }

  #join(): void {
    const spans = [...this.#joined, ...this.#loose].toSorted(([a], [b]) => a - b);
    this.#joined = [];
    this.#loose = [];
    for (const [startMs, endMs] of spans) {
      const last = this.#joined.at(-1);
      if (last !== undefined && startMs <= last[1]) last[1] = Math.max(last[1], endMs);
      else this.#joined.push([startMs, endMs]);
    }
  }
}
