/**
 * What the horizontal autoscaler of every fleet is told (`infra/kubernetes/scaler.ts`): up by as much as there is, or by
 * two, each 30 s; down by one each 60 s, once demand has stayed low.
 */
export const behaviour = {
  up: { percent: 100, pods: 2, periodSeconds: 30 },
  down: { percent: 10, pods: 1, periodSeconds: 60, mostStabilizationSeconds: 3_600 },
} as const;

/** The autoscaler leaves replicas as they are while the demand is this near to its target (Kubernetes' default). */
const tolerance = 0.1;

/** Bounds and pace of a fleet. */
export interface ScalerOptions {
  readonly min: number;
  readonly max: number;
  readonly targetRequests: number;
  readonly cooldownSeconds: number;
  readonly scaleDownSeconds: number;
  /** Floor by the clock. */
  readonly floorAt: (atSeconds: number) => number;
}

interface Change {
  readonly atSeconds: number;
  readonly count: number;
}

/** KEDA and the horizontal autoscaler of one fleet. Times are seconds and never go back. */
export class Scaler {
  readonly #options: ScalerOptions;
  /** Recommendations that none after them exceeds, the oldest first: the first is the highest of the window. */
  readonly #recommended: Change[] = [];
  #ups: Change[] = [];
  #downs: Change[] = [];
  #lastActive = 0;

  constructor(options: ScalerOptions) {
    this.#options = options;
  }

  /** A request came while there was no replica: KEDA is told at once. Answers how many there shall be. */
  activated(atSeconds: number): number {
    this.#lastActive = atSeconds;
    return Math.max(1, this.#options.min);
  }

  /** How many replicas there shall be, by the demand (requests queued and running) and how many there are. */
  desired(atSeconds: number, demand: number, current: number): number {
    const { min, max, cooldownSeconds, floorAt } = this.#options;
    const floor = Math.max(min, floorAt(atSeconds));
    if (demand > 0 || floor > 0) this.#lastActive = atSeconds;
    if (floor === 0 && atSeconds - this.#lastActive >= cooldownSeconds) return this.#changed(atSeconds, current, 0);
    if (current === 0) return demand > 0 || floor > 0 ? Math.min(max, Math.max(1, floor)) : 0;
    const wanted = Math.min(max, Math.max(1, floor, this.#byDemand(demand, current)));
    const held = this.#stabilized(atSeconds, wanted);
    if (wanted > current) return this.#changed(atSeconds, current, this.#upTo(atSeconds, current, wanted));
    if (held < current) return this.#changed(atSeconds, current, this.#downTo(atSeconds, current, held));
    return current;
  }

  #byDemand(demand: number, current: number): number {
    const { targetRequests } = this.#options;
    const ratio = demand / (targetRequests * current);
    return Math.abs(ratio - 1) <= tolerance ? current : Math.ceil(demand / targetRequests);
  }

  /** The highest recommendation of the window. */
  #stabilized(atSeconds: number, wanted: number): number {
    const seconds = Math.min(behaviour.down.mostStabilizationSeconds, this.#options.scaleDownSeconds);
    const window = this.#recommended;
    while ((window.at(-1)?.count ?? Infinity) <= wanted) window.pop();
    window.push({ atSeconds, count: wanted });
    while ((window[0]?.atSeconds ?? Infinity) < atSeconds - seconds) window.shift();
    return window[0]?.count ?? wanted;
  }

  #upTo(atSeconds: number, current: number, wanted: number): number {
    const { percent, pods, periodSeconds } = behaviour.up;
    this.#ups = recent(this.#ups, atSeconds - periodSeconds);
    const before = current - sum(this.#ups);
    return Math.min(wanted, Math.max(current, Math.ceil(before * (1 + percent / 100)), before + pods));
  }

  #downTo(atSeconds: number, current: number, held: number): number {
    const { percent, pods, periodSeconds } = behaviour.down;
    this.#downs = recent(this.#downs, atSeconds - periodSeconds);
    const before = current + sum(this.#downs);
    return Math.max(held, Math.min(current, Math.floor(before * (1 - percent / 100)), before - pods));
  }

  #changed(atSeconds: number, current: number, next: number): number {
    if (next > current) this.#ups.push({ atSeconds, count: next - current });
    if (next < current) this.#downs.push({ atSeconds, count: current - next });
    return next;
  }
}

function recent(changes: Change[], after: number): Change[] {
  return changes.filter(({ atSeconds }) => atSeconds > after);
}

function sum(changes: readonly Change[]): number {
  return changes.reduce((total, { count }) => total + count, 0);
}
