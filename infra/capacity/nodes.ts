import type { PlannedFleet, PlannedPool } from "../plan/plan.ts";

/** Where a new replica goes. Times in seconds. */
export interface Place {
  /** Place of its kind of node in the group. */
  readonly variant: number;
  readonly nodeReadyAt: number;
  /** The node has the fleet's image and models already. */
  readonly isPrepared: boolean;
  readonly isNewNode: boolean;
}

/** What a group of nodes may become in a simulation. */
export interface GroupOptions {
  /** Seconds that a node without pods stays. */
  readonly emptySeconds: number;
  /** Seconds until a new spare is ready. */
  readonly nodeSeconds: number;
  readonly withoutSpot: boolean;
  /** The pool's maximum does not count: what is needed is searched for. */
  readonly isUnlimited: boolean;
}

interface Free {
  since: number;
  count: number;
  /** Who used them last; null: nobody. */
  readonly fleet: string | null;
  readonly readyAt: number;
}

interface Variant {
  readonly pool: PlannedPool;
  /** Paid for: ready ones and those that start. */
  nodes: number;
  peak: number;
  /** The longest without pods first. */
  free: Free[];
  nodeSeconds: number;
}

interface Use {
  replicas: number;
  nodes: number;
  newestReadyAt: number;
  /** Of nodes that it takes. */
  nodeSeconds: number;
}

/**
 * Nodes of a pool of the stack: kinds in their try-order, bounds, spares, and how long they are paid for. A fleet's
 * replicas share nodes with each other only. Times are seconds and never go back.
 */
export class NodeGroup {
  readonly name: string;
  readonly #variants: readonly Variant[];
  readonly #uses = new Map<string, Use[]>();
  readonly #options: GroupOptions;
  readonly #most: number;
  #now = 0;
  #peak = 0;

  constructor(name: string, pools: readonly PlannedPool[], options: GroupOptions) {
    this.name = name;
    this.#options = options;
    this.#most = options.isUnlimited ? Infinity : (pools[0]?.groupNodes.max ?? 0);
    this.#variants = pools.map((pool) => ({ pool, nodes: 0, peak: 0, free: [], nodeSeconds: 0 }));
    for (const variant of this.#variants) this.#order(variant, Math.min(variant.pool.minNodes, this.#most), 0);
    this.#keepSpares(0);
  }

  get pools(): readonly PlannedPool[] {
    return this.#variants.map(({ pool }) => pool);
  }

  /** Most nodes at once. */
  get peakNodes(): number {
    return this.#peak;
  }

  /** A place for one more replica; null when the pool is full. */
  take(fleet: PlannedFleet, now: number): Place | null {
    this.#pass(now);
    const uses = this.#usesOf(fleet);
    const allowed = this.#variants
      .map((variant, at) => ({ variant, at, use: uses[at] }))
      .filter(({ variant }) => this.#mayUse(fleet, variant.pool));
    for (const { at, use } of allowed) {
      if (use === undefined || nodesOf(fleet, use.replicas + 1) > use.nodes) continue;
      use.replicas += 1;
      return { variant: at, nodeReadyAt: use.newestReadyAt, isPrepared: true, isNewNode: false };
    }
    for (const { variant, at, use } of allowed) {
      if (use === undefined) continue;
      const wanted = nodesOf(fleet, use.replicas + 1) - use.nodes;
      if (total(variant.free) < wanted) continue;
      const { readyAt, isPrepared } = takeFree(variant, fleet.name, wanted);
      this.#keepSpares(now);
      return this.#placed({ use, at, wanted, readyAt: Math.max(now, readyAt), isPrepared, isNewNode: false });
    }
    for (const { variant, at, use } of allowed) {
      if (use === undefined) continue;
      const wanted = nodesOf(fleet, use.replicas + 1) - use.nodes;
      if (!this.#hasRoom(variant, wanted)) continue;
      this.#add(variant, wanted);
      const readyAt = now + fleet.transitions.nodeSeconds;
      return this.#placed({ use, at, wanted, readyAt, isPrepared: false, isNewNode: true });
    }
    return null;
  }

  /** A replica is gone. */
  release(fleet: PlannedFleet, variant: number, now: number): void {
    this.#pass(now);
    const use = this.#usesOf(fleet)[variant];
    if (use === undefined) return;
    use.replicas -= 1;
    const freed = use.nodes - nodesOf(fleet, use.replicas);
    if (freed <= 0) return;
    use.nodes -= freed;
    this.#variants[variant]?.free.push({ since: now, count: freed, fleet: fleet.name, readyAt: use.newestReadyAt });
  }

  /** Time goes on: nodes that were empty for long leave, spares that were taken are replaced. */
  advance(now: number): void {
    this.#pass(now);
    for (const variant of this.#variants) {
      const { pool, free } = variant;
      for (const cohort of free) {
        if (now - cohort.since < this.#options.emptySeconds) break;
        const most = Math.min(variant.nodes - pool.minNodes, total(free) - pool.warmSpares, cohort.count);
        if (most <= 0) break;
        cohort.count -= most;
        variant.nodes -= most;
      }
      while (free[0] !== undefined && free[0].count === 0) free.shift();
    }
    this.#keepSpares(now);
  }

  /** Seconds of nodes so far, by kind. */
  nodeSeconds(): readonly number[] {
    return this.#variants.map(({ nodeSeconds }) => nodeSeconds);
  }

  /** The same, of nodes that a fleet's replicas are on. */
  nodeSecondsOf(fleet: PlannedFleet): readonly number[] {
    return this.#usesOf(fleet).map(({ nodeSeconds }) => nodeSeconds);
  }

  #placed(place: {
    readonly use: Use;
    readonly at: number;
    readonly wanted: number;
    readonly readyAt: number;
    readonly isPrepared: boolean;
    readonly isNewNode: boolean;
  }): Place {
    const { use, at, wanted, readyAt, isPrepared, isNewNode } = place;
    use.replicas += 1;
    use.nodes += wanted;
    use.newestReadyAt = readyAt;
    return { variant: at, nodeReadyAt: readyAt, isPrepared, isNewNode };
  }

  #mayUse(fleet: PlannedFleet, pool: PlannedPool): boolean {
    return pool.capacity !== "spot" || (fleet.spot && !this.#options.withoutSpot);
  }

  #hasRoom({ pool, nodes }: Variant, wanted: number): boolean {
    if (this.#options.isUnlimited) return true;
    const all = this.#variants.reduce((sum, variant) => sum + variant.nodes, 0);
    return nodes + wanted <= pool.maxNodes && all + wanted <= this.#most;
  }

  #order(variant: Variant, count: number, readyAt: number): void {
    if (count <= 0) return;
    this.#add(variant, count);
    variant.free.push({ since: this.#now, count, fleet: null, readyAt });
  }

  #add(variant: Variant, count: number): void {
    variant.nodes += count;
    variant.peak = Math.max(variant.peak, variant.nodes);
    this.#peak = Math.max(
      this.#peak,
      this.#variants.reduce((sum, { nodes }) => sum + nodes, 0),
    );
  }

  #keepSpares(now: number): void {
    for (const variant of this.#variants) {
      const missing = variant.pool.warmSpares - total(variant.free);
      if (missing > 0 && this.#hasRoom(variant, missing)) this.#order(variant, missing, this.#started(now));
    }
  }

  /** What is there from the start is ready at once. */
  #started(now: number): number {
    return now === 0 ? 0 : now + this.#options.nodeSeconds;
  }

  #usesOf(fleet: PlannedFleet): Use[] {
    const known = this.#uses.get(fleet.name);
    if (known !== undefined) return known;
    const made = this.#variants.map(() => ({ replicas: 0, nodes: 0, newestReadyAt: 0, nodeSeconds: 0 }));
    this.#uses.set(fleet.name, made);
    return made;
  }

  #pass(now: number): void {
    const seconds = now - this.#now;
    if (seconds <= 0) return;
    this.#now = now;
    for (const variant of this.#variants) variant.nodeSeconds += variant.nodes * seconds;
    for (const uses of this.#uses.values()) for (const use of uses) use.nodeSeconds += use.nodes * seconds;
  }
}

/** Nodes that so many replicas of a fleet take. */
export function nodesOf({ replicasPerNode }: Pick<PlannedFleet, "replicasPerNode">, replicas: number): number {
  // The plan rounds to four digits.
  return Math.ceil(replicas / replicasPerNode - 0.001);
}

/** Takes nodes that this fleet used last where there are some, and then the newest. */
function takeFree(variant: Variant, fleet: string, wanted: number): { readyAt: number; isPrepared: boolean } {
  let left = wanted;
  let readyAt = 0;
  let isPrepared = true;
  const order = variant.free.toReversed().toSorted((a, b) => Number(b.fleet === fleet) - Number(a.fleet === fleet));
  for (const cohort of order) {
    if (left === 0) break;
    const here = Math.min(left, cohort.count);
    if (here === 0) continue;
    cohort.count -= here;
    left -= here;
    readyAt = Math.max(readyAt, cohort.readyAt);
    isPrepared &&= cohort.fleet === fleet;
  }
  variant.free = variant.free.filter(({ count }) => count > 0);
  return { readyAt, isPrepared };
}

function total(free: readonly Free[]): number {
  return free.reduce((sum, { count }) => sum + count, 0);
}
