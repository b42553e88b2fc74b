import type { CloudPlan, PlannedFleet, PlannedPool } from "../plan/plan.ts";
import type { Assumptions } from "./assumptions.ts";
import { amountOf, dividedAmount, hoursPerMonth, sumOf, zero, type Amount } from "./money.ts";
import { nodesAt, placed, replicasAt, type FleetNodes, type Placement, type PricedVariant } from "./placement.ts";
import { nodePrice, type PriceBook } from "./prices.ts";
import { eachLevel, type Level, type Levels, type PoolCost, type VariantCost } from "./report.ts";

/** What a pool costs, and how much of it each of its fleets takes. */
export interface PricedPool {
  readonly pool: PoolCost;
  readonly fleets: ReadonlyMap<string, { readonly nodes: Levels<number>; readonly cost: Levels<Amount> }>;
}

/** Prices every pool. Parts of a pool (fleets, and what none of them takes) sum up to it exactly. */
export function pricedPools(plan: CloudPlan, book: PriceBook, assumptions: Assumptions): PricedPool[] {
  const groups = Map.groupBy(plan.pools, ({ group }) => group);
  return [...groups].map(([name, pools]) => {
    const variants = pools.map((pool) => ({ pool, price: nodePrice(pool, plan.region, book) }));
    const fleets = plan.fleets.filter((fleet) => fleet.pool === name);
    return pricedPool({ name, variants, fleets, region: plan.region }, assumptions.expected);
  });
}

interface Group {
  readonly name: string;
  readonly variants: readonly PricedVariant[];
  readonly fleets: readonly PlannedFleet[];
  readonly region: string;
}

function pricedPool(group: Group, expected: number): PricedPool {
  const { name, variants, fleets } = group;
  const at = eachLevel((level) => divide(group, placementAt(group, level, expected), level));
  const nodes = eachLevel((level) => total(at[level].placement.counts));
  const gpus = eachLevel((level) =>
    total(at[level].placement.counts.map((count, index) => count * (variants[index]?.pool.gpu.count ?? 0))),
  );
  const pool: PoolCost = {
    name,
    nodes,
    gpus,
    variants: variants.map(({ pool: { name: variant, size, capacity, gpu }, price }, index): VariantCost => {
      const counts = eachLevel((level) => at[level].placement.counts[index] ?? 0);
      const cost = eachLevel((level) => at[level].variants[index] ?? zero);
      return { name: variant, size, capacity, gpusPerNode: gpu.count, price, nodes: counts, cost };
    }),
    cost: eachLevel((level) => sumOf(at[level].variants)),
    unused: eachLevel((level) => at[level].unused),
    cap: capOf(variants.map((variant) => variant.pool)),
  };
  return {
    pool,
    fleets: new Map(
      fleets.map((fleet) => [
        fleet.name,
        {
          nodes: eachLevel((level) => total(at[level].placement.used.get(fleet.name) ?? [])),
          cost: eachLevel((level) => at[level].fleets.get(fleet.name) ?? zero),
        },
      ]),
    ),
  };
}

function placementAt({ variants, fleets }: Group, level: Level, expected: number): Placement {
  const wanted = fleets.map((fleet): FleetNodes => {
    const replicas = replicasAt(fleet, level, expected);
    return { fleet, nodes: replicas / fleet.replicasPerNode };
  });
  const demand = total(wanted.map(({ nodes }) => nodes));
  const pools = variants.map(({ pool }) => pool);
  return placed(variants, { fleets: wanted, nodes: nodesAt(pools, demand, level), level });
}

interface At {
  readonly region: string;
  readonly level: Level;
}

interface Divided {
  readonly placement: Placement;
  /** By the variant's place. */
  readonly variants: readonly Amount[];
  readonly fleets: ReadonlyMap<string, Amount>;
  readonly unused: Amount;
}

/** The cost of each variant, and its parts by who takes its nodes. */
function divide({ variants, region }: Group, placement: Placement, level: Level): Divided {
  const names = [...placement.used.keys()];
  const parts = new Map<string, Amount[]>([...names, ""].map((name) => [name, []]));
  const costs = variants.map((variant, at) => {
    const count = placement.counts[at] ?? 0;
    const cost = nodesCost(count, variant, { region, level });
    const used = names.map((name) => placement.used.get(name)?.[at] ?? 0);
    const weights = [...used, Math.max(0, count - total(used))];
    const shares = dividedAmount(cost, weights);
    for (const [index, name] of [...names, ""].entries()) parts.get(name)?.push(shares[index] ?? zero);
    return cost;
  });
  const fleets = new Map(names.map((name) => [name, sumOf(parts.get(name) ?? [])]));
  return { placement, variants: costs, fleets, unused: sumOf(parts.get("") ?? []) };
}

/** A month of so many nodes; at the maximum a node costs the most that it can. */
function nodesCost(nodes: number, { pool, price }: PricedVariant, { region, level }: At): Amount {
  if (nodes === 0) return zero;
  const { usdPerHour, ceilingUsdPerHour } = price;
  const month = (usd: number | null): number | null => (usd === null ? null : usd * nodes * hoursPerMonth);
  const name = `${pool.capacity} price of ${pool.size} in ${region}`;
  return amountOf(name, month(level === "maximum" ? ceilingUsdPerHour : usdPerHour), month(ceilingUsdPerHour));
}

function capOf(pools: readonly PlannedPool[]): PoolCost["cap"] {
  const karpenter = pools.some(({ provisioner }) => provisioner === "karpenter");
  return {
    nodes: pools[0]?.groupNodes.max ?? 0,
    cloudNodes: total(pools.map(({ maxNodes }) => maxNodes)),
    enforcedBy: karpenter ? "Karpenter's limits" : "the autoscaler's maximum of the node pool",
  };
}

function total(numbers: readonly number[]): number {
  return numbers.reduce((sum, each) => sum + each, 0);
}
