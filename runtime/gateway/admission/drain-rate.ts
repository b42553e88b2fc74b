/** How many of the latest departures are looked at. */
const remembered = 64;

/** How fast a queue empties, measured on its latest departures. */
export class DrainRate {
  readonly #departuresMs: number[] = [];
  #next = 0;

  left(nowMs: number): void {
    this.#departuresMs[this.#next] = nowMs;
    this.#next = (this.#next + 1) % remembered;
  }

  /** Time until `count` more have left; undefined when nothing was measured. A queue that stands still gets slower. */
  untilLeftMs(count: number, nowMs: number): number | undefined {
    const departures = this.#departuresMs.length;
    if (departures < 2) return undefined;
    const oldestMs = this.#departuresMs[departures < remembered ? 0 : this.#next] ?? nowMs;
    return (count * (nowMs - oldestMs)) / (departures - 1);
  }
}
