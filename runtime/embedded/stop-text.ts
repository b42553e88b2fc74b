/** What a piece of text released. */
export interface Scanned {
  /** Text that may leave: no part of it can belong to a needle. */
  readonly text: string;
  /** The needle that was found; nothing behind it was released. */
  readonly found: string | undefined;
  /** What followed the needle in the same piece. */
  readonly rest: string;
}

/** Looks for needles (stop sequences, markers) in text that comes in pieces, and holds back what may become one. */
export class StopText {
  readonly #needles: readonly string[];
  #held = "";

  constructor(needles: readonly string[]) {
    this.#needles = needles.filter((needle) => needle !== "");
  }

  push(piece: string): Scanned {
    const buffer = this.#held + piece;
    let at = -1;
    let found: string | undefined;
    for (const needle of this.#needles) {
      const index = buffer.indexOf(needle);
      const isFirst = index >= 0 && (at < 0 || index < at || (index === at && needle.length > (found?.length ?? 0)));
      if (isFirst) [at, found] = [index, needle];
    }
    if (found !== undefined) {
      this.#held = "";
      return { text: buffer.slice(0, at), found, rest: buffer.slice(at + found.length) };
    }
    const keep = this.#possibleStart(buffer);
    this.#held = buffer.slice(buffer.length - keep);
    return { text: buffer.slice(0, buffer.length - keep), found: undefined, rest: "" };
  }

  /** What was held back and turned out to be no needle. */
  end(): string {
    const text = this.#held;
    this.#held = "";
    return text;
  }

  /** Length of the longest end of `buffer` with which a needle begins. */
  #possibleStart(buffer: string): number {
    let longest = 0;
    for (const needle of this.#needles) {
      for (let length = Math.min(needle.length - 1, buffer.length); length > longest; length -= 1) {
        if (buffer.endsWith(needle.slice(0, length))) longest = length;
      }
    }
    return longest;
  }
}
