import { PenstockError } from "../../contracts/errors.ts";
import type { DownloadProgress } from "../downloads/progress.ts";
import { Flight } from "./flight.ts";
import type { Hold } from "./holds.ts";
import type { CachedSpec } from "./key.ts";
import { obtain, type Inside, type Obtained } from "./obtain.ts";

/** A model that is asked for. */
export interface Wanted {
  readonly key: string;
  readonly spec: CachedSpec;
  readonly hold: Hold;
}

/** One who asks. */
export interface Asked {
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
  readonly isBackground: boolean;
}

interface Sharing {
  readonly flight: Flight<DownloadProgress, Obtained>;
  isBackground: boolean;
}

/** Models that this process is obtaining: one flight for each, whoever asks. */
export class Flights {
  readonly #inside: Inside;
  readonly #flights = new Map<string, Sharing>();

  constructor(inside: Inside) {
    this.#inside = inside;
  }

  /** Waits for a model with all who ask for it. Throws what `obtain` throws, or the signal's reason. */
  async join(wanted: Wanted, { onProgress, signal, isBackground }: Asked): Promise<Obtained> {
    for (;;) {
      const sharing = this.#flights.get(wanted.key) ?? this.#start(wanted, isBackground);
      if (sharing.flight.isEnding) {
        await sharing.flight.ended();
        continue;
      }
      const isPromoted = sharing.isBackground && !isBackground;
      if (isPromoted) sharing.isBackground = false;
      try {
        return await sharing.flight.join(onProgress, signal);
      } catch (thrown) {
        // It had given up where a request may evict.
        const mayFitNow = thrown instanceof PenstockError && thrown.code === "cache_full";
        if (!isPromoted || !mayFitNow) throw thrown;
      }
    }
  }

  #start(wanted: Wanted, isBackground: boolean): Sharing {
    const sharing: Sharing = {
      isBackground,
      flight: new Flight((onProgress, signal) => {
        const work = { ...wanted, onProgress, signal, isBackground: () => sharing.isBackground };
        return obtain(work, this.#inside).finally(() => this.#flights.delete(wanted.key));
      }),
    };
    this.#flights.set(wanted.key, sharing);
    return sharing;
  }
}
