import type { Engine } from "./engine.ts";
import type { NodeGroup, Place } from "./nodes.ts";
import { Scaler } from "./scaler.ts";
import type { SimulatedFleet } from "./scenario.ts";
import type { Tally } from "./tally.ts";

/** Seconds from now until a replica at that place serves. */
export function readyAt({ fleet }: SimulatedFleet, { nodeReadyAt, isPrepared }: Place, now: number): number {
  const { imageSeconds, downloadSeconds, loadSeconds } = fleet.transitions;
  return Math.max(now, nodeReadyAt) + (isPrepared ? 0 : imageSeconds + downloadSeconds) + loadSeconds;
}

/** The autoscaler of a fleet. */
export function scalerOf({ fleet, bounds, floorAt }: SimulatedFleet): Scaler {
  const { cooldownSeconds, scaleDownSeconds } = fleet.scaling;
  return new Scaler({ ...bounds, cooldownSeconds, scaleDownSeconds, floorAt });
}

/** A replica in a simulation of single requests. */
export interface Replica {
  readonly place: Place;
  readonly readyAt: number;
  /** One for each model that it serves at once. */
  readonly slots: readonly Engine[];
  /** Since when it takes no more requests; null while it does. */
  drainingSince: number | null;
  /** Models that it has had in its memory, which wake sooner than they load. */
  readonly known: Set<number>;
}

/** Replicas of one fleet: what the autoscaler wants, on the nodes that there are. */
export class ReplicaSet {
  readonly replicas: Replica[] = [];
  readonly #simulated: SimulatedFleet;
  readonly #group: NodeGroup;
  readonly #tally: Tally;
  readonly #make: (place: Place, readyAtSeconds: number) => Replica;
  #now = 0;

  constructor(
    simulated: SimulatedFleet,
    group: NodeGroup,
    parts: { readonly tally: Tally; readonly make: (place: Place, readyAtSeconds: number) => Replica },
  ) {
    this.#simulated = simulated;
    this.#group = group;
    this.#tally = parts.tally;
    this.#make = parts.make;
  }

  /** Replicas that are there when the trace begins. */
  begin(): void {
    const { bounds, floorAt } = this.#simulated;
    this.#start(Math.max(bounds.min, floorAt(0)), 0);
  }

  /** Those that are wanted still, started ones and those that start. */
  get wanted(): number {
    return this.replicas.filter(({ drainingSince }) => drainingSince === null).length;
  }

  /** Requests that are at its engines, at `now`. */
  outstanding(now: number): number {
    let sum = 0;
    for (const { slots } of this.replicas) {
      for (const slot of slots) {
        slot.advance(now * 1_000);
        sum += slot.outstanding;
      }
    }
    return sum;
  }

  /** Makes it so many. Answers when new ones are ready. */
  scaleTo(count: number, now: number): readonly number[] {
    this.pass(now);
    const missing = count - this.wanted;
    if (missing > 0) return this.#start(missing, now);
    const idleFirst = this.replicas
      .filter(({ drainingSince }) => drainingSince === null)
      .toSorted((a, b) => outstandingOf(a) - outstandingOf(b) || b.readyAt - a.readyAt);
    for (const replica of idleFirst.slice(0, -missing)) replica.drainingSince = now;
    return [];
  }

  /** Replicas that drain and are done, or have drained for too long, leave. */
  settle(now: number): void {
    this.pass(now);
    const { fleet } = this.#simulated;
    for (const replica of this.replicas.filter(({ drainingSince }) => drainingSince !== null)) {
      const left = outstandingOf(replica);
      if (left > 0 && now - (replica.drainingSince ?? now) < fleet.drainSeconds) continue;
      this.#tally.cut += left;
      this.replicas.splice(this.replicas.indexOf(replica), 1);
      this.#group.release(fleet, replica.place.variant, now);
    }
  }

  /** Counts the time that replicas were there. */
  pass(now: number): void {
    this.#tally.replicaSeconds += (now - this.#now) * this.replicas.length;
    this.#now = now;
  }

  #start(count: number, now: number): number[] {
    const times: number[] = [];
    for (let started = 0; started < count; started += 1) {
      const place = this.#group.take(this.#simulated.fleet, now);
      if (place === null) {
        this.#tally.blocked += 1;
        break;
      }
      // What is there when the trace begins has been there for long.
      const at = now === 0 ? 0 : readyAt(this.#simulated, place, now);
      if (now > 0) {
        this.#tally.coldStarts += 1;
        if (place.isNewNode) this.#tally.newNodeStarts += 1;
      }
      this.replicas.push(this.#make(place, at));
      times.push(at);
    }
    this.#tally.peakReplicas = Math.max(this.#tally.peakReplicas, this.replicas.length);
    return times;
  }
}

/** Requests at a replica, as of the last time its engines went on. */
export function outstandingOf({ slots }: Replica): number {
  return slots.reduce((sum, slot) => sum + slot.outstanding, 0);
}
