import type { PlannedFleet, PlannedPool } from "../plan/plan.ts";
import type { NodePrice } from "./prices.ts";
import type { Level } from "./report.ts";

/** A variant of a pool with its price. */
export interface PricedVariant {
  readonly pool: PlannedPool;
  readonly price: NodePrice;
}

/** A fleet's nodes at a level. A fraction: replicas that share a node, and averages. */
export interface FleetNodes {
  readonly fleet: PlannedFleet;
  readonly nodes: number;
}

/** How many nodes of each variant there are, and how many of them each fleet takes. Both by the variant's place. */
export interface Placement {
  readonly counts: readonly number[];
  readonly used: ReadonlyMap<string, readonly number[]>;
}

/** Replicas of a fleet at a level. */
export function replicasAt({ replicas }: PlannedFleet, level: Level, expected: number): number {
  if (level === "minimum") return replicas.min;
  if (level === "maximum") return replicas.max;
  return replicas.min + expected * (replicas.max - replicas.min);
}

/** Nodes of a group at a level. */
export function nodesAt(variants: readonly PlannedPool[], demand: number, level: Level): number {
  const bounds = variants[0]?.groupNodes ?? { min: 0, max: 0 };
  if (level === "minimum") return bounds.min;
  if (level === "maximum") return bounds.max;
  const spares = variants.reduce((sum, { warmSpares }) => sum + warmSpares, 0);
  return Math.min(bounds.max, Math.max(bounds.min, demand + spares));
}

/**
 * Puts fleets on nodes as the cluster does: on nodes that are there in any case, then on new ones in the try-order; fleets
 * without `spot: true` never on spot. Bought capacity is paid for whether it is used or not. At the maximum every node
 * beyond what was bought is of the dearest variant.
 */
export function placed(
  variants: readonly PricedVariant[],
  { fleets, nodes, level }: { readonly fleets: readonly FleetNodes[]; readonly nodes: number; readonly level: Level },
): Placement {
  const isMaximum = level === "maximum";
  const order = isMaximum ? byCeiling(variants) : variants.map((_, at) => at);
  const counts = variants.map(({ pool }) => (isBought(pool) ? pool.maxNodes : isMaximum ? 0 : pool.minNodes));
  const room = (at: number): number => {
    const pool = variants[at]?.pool;
    if (pool === undefined) return 0;
    return isMaximum && !isBought(pool) ? nodes : pool.maxNodes;
  };
  const taken = variants.map(() => 0);
  const used = new Map<string, number[]>();
  const steadyFirst = fleets.toSorted((a, b) => Number(a.fleet.spot) - Number(b.fleet.spot));
  for (const { fleet, nodes: wanted } of steadyFirst) {
    const mine = variants.map(() => 0);
    const usable = order.filter((at) => fleet.spot || variants[at]?.pool.capacity !== "spot");
    let left = wanted;
    const take = (at: number, upTo: number): void => {
      const here = Math.min(left, Math.max(0, upTo - (taken[at] ?? 0)));
      mine[at] = (mine[at] ?? 0) + here;
      taken[at] = (taken[at] ?? 0) + here;
      left -= here;
    };
    for (const at of usable) take(at, counts[at] ?? 0);
    for (const at of usable) take(at, room(at));
    used.set(fleet.name, mine);
  }
  const there = counts.map((count, at) => Math.max(count, taken[at] ?? 0));
  return { counts: withRest(there, { order, nodes, room }), used };
}

/** Adds the nodes that are there beyond what fleets take: spares and floors. */
function withRest(
  counts: readonly number[],
  rest: { readonly order: readonly number[]; readonly nodes: number; readonly room: (at: number) => number },
): number[] {
  const result = [...counts];
  let left = rest.nodes - counts.reduce((sum, count) => sum + count, 0);
  for (const at of rest.order) {
    const here = Math.min(Math.max(0, left), Math.max(0, rest.room(at) - (result[at] ?? 0)));
    result[at] = (result[at] ?? 0) + here;
    left -= here;
  }
  return result;
}

function isBought({ capacity }: PlannedPool): boolean {
  return capacity === "reserved" || capacity === "block";
}

/** Places of variants, bought ones first and then the dearest; one without any price is dearer than all. */
function byCeiling(variants: readonly PricedVariant[]): number[] {
  const ceiling = (at: number): number => variants[at]?.price.ceilingUsdPerHour ?? Number.POSITIVE_INFINITY;
  const bought = (at: number): number => (variants[at] !== undefined && isBought(variants[at].pool) ? 0 : 1);
  return variants
    .map((_, at) => at)
    .toSorted((a, b) => bought(a) - bought(b) || Math.sign(ceiling(b) - ceiling(a) || 0) || b - a);
}
