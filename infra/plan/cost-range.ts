import { priceOf } from "../catalog/prices.ts";
import type { CloudPlan, PlannedPool } from "./plan.ts";

/** What nodes and managed stores cost an hour, by the list. */
export interface CostRange {
  /** At minimum replicas, on the first nodes of the try-order with a price. */
  readonly minUsdPerHour: number;
  /** At the pools' maxima, on their dearest nodes. */
  readonly maxUsdPerHour: number;
  /** What has no price and is in neither; never taken for zero in silence. */
  readonly unknown: readonly string[];
}

/** A part of the range. */
export interface CostPart {
  readonly name: string;
  /** Null: unknown. */
  readonly min: number | null;
  readonly max: number | null;
}

/** Groups of pools, system nodes and stores: the parts of the range, in the plan's order. */
export function costParts(plan: CloudPlan): CostPart[] {
  const { system } = plan.cluster;
  const each = system.price.usdPerHour;
  return [
    ...groupsOf(plan).map((pools) => groupCost(plan.region, pools)),
    {
      name: "system nodes",
      min: each === null ? null : each * system.minNodes,
      max: each === null ? null : each * system.maxNodes,
    },
    { name: "redis", min: plan.redis.price.usdPerHour, max: plan.redis.price.usdPerHour },
    { name: "postgres", min: plan.postgres.price.usdPerHour, max: plan.postgres.price.usdPerHour },
  ];
}

/** The sum of `costParts`. */
export function costRange(plan: CloudPlan): CostRange {
  const parts = costParts(plan);
  return {
    minUsdPerHour: parts.reduce((sum, { min }) => sum + (min ?? 0), 0),
    maxUsdPerHour: parts.reduce((sum, { max }) => sum + (max ?? 0), 0),
    unknown: parts.flatMap(({ name, max }) => (max === null ? [name] : [])),
  };
}

/** Variants of one stack's pool together, in their try-order. */
export function groupsOf({ pools }: Pick<CloudPlan, "pools">): (readonly [PlannedPool, ...PlannedPool[]])[] {
  return [...new Set(pools.map(({ group }) => group))].flatMap((name) => {
    const [first, ...others] = pools.filter(({ group }) => group === name);
    return first === undefined ? [] : [[first, ...others] as const];
  });
}

function groupCost(region: string, pools: readonly [PlannedPool, ...PlannedPool[]]): CostPart {
  const [first] = pools;
  const prices = pools.map((pool) => priceAtMost(region, pool)).filter((price) => price !== null);
  const [cheapest] = prices;
  const { min, max } = first.groupNodes;
  if (cheapest === undefined) return { name: first.group, min: min === 0 ? 0 : null, max: null };
  return { name: first.group, min: min * cheapest, max: max * Math.max(...prices) };
}

/** Where no spot price is known, that on demand is its bound: neither cloud charges more for spot. */
function priceAtMost(region: string, { price, size }: PlannedPool): number | null {
  return price.usdPerHour ?? priceOf({ size, region, capacity: "on-demand" }).usdPerHour;
}
