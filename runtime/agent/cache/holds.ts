import type { FileLock } from "./lock.ts";

/** What this process has of one entry. */
export class Hold {
  /** While it is there the entry stays as it is, whoever asks. */
  lock: FileLock | undefined;
  /** Models that were given out and not yet released. */
  given = 0;
  /** Those, and callers who still wait. */
  interested = 0;
}

/** Entries that this process uses or waits for; the lock of each lasts until nobody does. */
export class Holds {
  readonly #holds = new Map<string, Hold>();

  isGiven(key: string): boolean {
    return (this.#holds.get(key)?.given ?? 0) > 0;
  }

  /** One more is interested in an entry, until `leave`. */
  enter(key: string): Hold {
    const hold = this.#holds.get(key) ?? new Hold();
    this.#holds.set(key, hold);
    hold.interested += 1;
    return hold;
  }

  /** Ends the interest of one who waited in vain. */
  leave(key: string, hold: Hold): void {
    hold.interested -= 1;
    if (hold.interested > 0) return;
    hold.lock?.[Symbol.dispose]();
    if (this.#holds.get(key) === hold) this.#holds.delete(key);
  }

  /** Turns the interest of one who waited into a use. Answers what ends it; calling that twice does no harm. */
  give(key: string, hold: Hold): () => void {
    hold.given += 1;
    let isReleased = false;
    return () => {
      if (isReleased) return;
      isReleased = true;
      hold.given -= 1;
      this.leave(key, hold);
    };
  }

  /** Lets go of everything that was given out. Those who still wait get what they wait for. */
  releaseAll(): void {
    for (const hold of this.#holds.values()) {
      if (hold.given === hold.interested) hold.lock?.[Symbol.dispose]();
    }
    this.#holds.clear();
  }
}
