import type { CloudPlan } from "../plan/plan.ts";
import type { Assumptions } from "./assumptions.ts";
import { hoursPerMonth } from "./money.ts";
import { eachLevel, type Levels, type PoolCost, type SharedCost } from "./report.ts";

/** Something beside GPU nodes that a stack makes, by its name in `aux-prices.json`. */
export interface SharedItem {
  readonly id: string;
  readonly name: string;
  readonly category: SharedCost["category"];
  readonly quantity: Levels<number>;
  /** What one of it is: `hour` items cost their price each hour of the month. */
  readonly unit: string;
  readonly price: SharedPrice;
  readonly isHiddenFloor: boolean;
}

/** A name in the list of prices, or a price that the plan has; `isHourly`: by the hour. */
export type SharedPrice =
  | { readonly item: string; readonly isHourly: boolean }
  | {
      readonly usd: number | null;
      readonly source: string;
      readonly asOf: string;
      readonly isHourly: boolean;
    };

/** What the items depend on beside the plan. */
export interface SharedContext {
  readonly assumptions: Assumptions;
  readonly pools: readonly PoolCost[];
  /** Nodes of the system pool. */
  readonly systemNodes: Levels<number>;
}

/** A fee by the hour that nobody sees in a list of machines. */
export function feeItem(
  id: string,
  name: string,
  { count, unit, item }: { readonly count: number; readonly unit: string; readonly item: string },
): SharedItem {
  const price = { item, isHourly: true };
  return { id, name, category: "Networking", quantity: always(count), unit, price, isHiddenFloor: true };
}

/** Something that is paid by how much of it there is in the month. */
export function stockItem(
  id: string,
  name: string,
  {
    quantity,
    item,
    unit = "GB-month",
  }: { readonly quantity: Levels<number>; readonly item: string; readonly unit?: string },
): SharedItem {
  return { id, name, category: "Storage", quantity, unit, price: { item, isHourly: false }, isHiddenFloor: false };
}

/** Disks of Redis and PostgreSQL where they run on the system nodes. */
export function inClusterDisks({ redis, postgres }: CloudPlan, item: string): SharedItem[] {
  const stores = [redis, postgres].filter(({ mode }) => mode === "in-cluster");
  const sizeGiB = stores.reduce((sum, { storageGiB }) => sum + storageGiB, 0);
  return [
    stockItem("store-disks", `Disks of stores in the cluster (${sizeGiB} GiB)`, { quantity: always(sizeGiB), item }),
  ];
}

/** The same quantity at every level. */
export function always(quantity: number): Levels<number> {
  return eachLevel(() => quantity);
}

/** All nodes of a stack. */
export function allNodes({ pools, systemNodes }: SharedContext): Levels<number> {
  return eachLevel((level) => pools.reduce((sum, { nodes }) => sum + nodes[level], systemNodes[level]));
}

/** Tens of millions of metric samples in a month. */
export function sampleBatches(context: SharedContext): Levels<number> {
  const nodes = allNodes(context);
  const perNode = (context.assumptions.metricSamplesPerNodeSecond * 3600 * hoursPerMonth) / 10_000_000;
  return eachLevel((level) => nodes[level] * perNode);
}
