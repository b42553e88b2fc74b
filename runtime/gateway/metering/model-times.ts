/** What a replica is doing: becoming ready, ready without a request, or at work. */
export type ReplicaPhase = "cold_start" | "idle" | "busy";

/** Seconds that the replicas of a model spent, together. */
export interface ModelTime {
  readonly model: string;
  readonly coldStartSeconds: number;
  readonly idleSeconds: number;
  readonly busySeconds: number;
}

/** A replica that was not heard of for longer is not charged beyond this. */
const maxGapMs = 60_000;

interface Observed {
  readonly model: string;
  readonly phase: ReplicaPhase;
  readonly atMs: number;
}

type Seconds = Record<ReplicaPhase, number>;

/**
 * Sums up how long the replicas of each model were loading, idle and busy, from what heartbeats say of them, so that a
 * cost report can divide what machines cost among those who used them and what stood by.
 */
export class ModelTimes {
  readonly #replicas = new Map<string, Observed>();
  readonly #totals = new Map<string, Seconds>();

  /**
   * A replica of `model` is in `phase` since now; `null` when it is gone. Call it for each heartbeat.
   * `replica` is any name that stays the same; `atMs` is a clock that never goes back.
   */
  observe(
    { model, replica }: { readonly model: string; readonly replica: string },
    phase: ReplicaPhase | null,
    atMs: number,
  ): void {
    const key = JSON.stringify([model, replica]);
    const before = this.#replicas.get(key);
    if (before !== undefined) {
      const seconds = Math.min(maxGapMs, Math.max(0, atMs - before.atMs)) / 1_000;
      this.#of(model)[before.phase] += seconds;
    }
    if (phase === null) this.#replicas.delete(key);
    else this.#replicas.set(key, { model, phase, atMs });
  }

  /** Sums since the start, as of the last observations. */
  totals(): ModelTime[] {
    return [...this.#totals].map(([model, seconds]) => ({
      model,
      coldStartSeconds: seconds.cold_start,
      idleSeconds: seconds.idle,
      busySeconds: seconds.busy,
    }));
  }

  #of(model: string): Seconds {
    const found = this.#totals.get(model);
    if (found !== undefined) return found;
    const seconds: Seconds = { cold_start: 0, idle: 0, busy: 0 };
    this.#totals.set(model, seconds);
    return seconds;
  }
}
