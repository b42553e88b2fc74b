import { z } from "zod";
import { readSmallJson, writeWhole } from "./files.ts";
import { isOutOfSpace } from "../downloads/space.ts";

const reading = z.object({ wallMs: z.number(), cacheMs: z.number() });
type Reading = z.infer<typeof reading>;

/** A longer time between two looks at the clock counts as no time at all. */
export const maxGapMs = 3_600_000;

/**
 * The time that all agents on one directory stamp and age its entries by. It goes on by what the system clock did between
 * two looks, by 1 ms when that went backwards, stood still or leapt by more than an hour. So stamps only ever grow, which
 * keeps the order of use, and neither a clock that is set wrong nor a node that was off for a month makes everything old.
 * A cache looks at it with every use and every sweep. Call `tick` under the directory's lock only.
 */
export class CacheClock {
  readonly #path: string;
  readonly #wall: () => number;
  #last: Reading | undefined;

  constructor(path: string, wall: () => number) {
    this.#path = path;
    this.#wall = wall;
  }

  /**
   * Looks at the system clock and answers the cache's time, in ms; never the same twice. `newestMs` is the latest stamp
   * in the cache, undefined when it is empty: where time goes on when the clock's file is lost.
   */
  async tick(newestMs: number | undefined): Promise<number> {
    const last = reading.safeParse(await readSmallJson(this.#path)).data ?? this.#last;
    const wallMs = Math.round(this.#wall());
    const passed = last === undefined ? 0 : wallMs - last.wallMs;
    const cacheMs =
      last === undefined
        ? Math.min(wallMs, (newestMs ?? wallMs) + 1)
        : last.cacheMs + (passed > 0 && passed <= maxGapMs ? passed : 1);
    this.#last = { wallMs, cacheMs };
    try {
      await writeWhole(this.#path, JSON.stringify(this.#last));
    } catch (thrown) {
      // A full disk is just when room must be made, which needs the time.
      if (!isOutOfSpace(thrown)) throw thrown;
    }
    return cacheMs;
  }

  /** A stamp as a person reads it: as long ago as it is in the cache's time. */
  toDate(stampMs: number): Date {
    const { wallMs, cacheMs } = this.#last ?? { wallMs: 0, cacheMs: 0 };
    return new Date(wallMs - Math.max(0, cacheMs - stampMs));
  }
}
