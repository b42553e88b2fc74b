import type { Writable } from "node:stream";

/** Milliseconds between two lines that tell how far something is. */
const everyMs = 500;

/** Tells on stderr how far a command is: one line that is written over on a terminal, and nothing of it elsewhere. */
export class Progress {
  readonly #to: Writable;
  readonly #isTerminal: boolean;
  #lastMs = 0;

  constructor(to: Writable, isTerminal: boolean) {
    this.#to = to;
    this.#isTerminal = isTerminal;
  }

  /** A line that stays. */
  say(text: string): void {
    this.done();
    this.#to.write(`${text}\n`);
  }

  /** So far, 0 to 1. */
  share(share: number): void {
    this.note(`${(100 * share).toFixed(0)} %`);
  }

  /** A line that the next one replaces. */
  note(text: string): void {
    const nowMs = performance.now();
    if (!this.#isTerminal || nowMs - this.#lastMs < everyMs) return;
    this.#lastMs = nowMs;
    this.#to.write(`\r\u001b[K${text}`);
  }

  /** Removes the line. */
  done(): void {
    if (this.#isTerminal && this.#lastMs > 0) this.#to.write("\r\u001b[K");
    this.#lastMs = 0;
  }
}
