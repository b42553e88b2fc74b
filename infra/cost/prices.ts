import { auxPrices } from "../catalog/aux-prices.ts";
import { priceOf, type ListPrice, type PriceQuestion } from "../catalog/prices.ts";
import type { CloudPlan, PlannedPrice } from "../plan/plan.ts";

/** Where a report's prices are from: the catalogue, or others in a test. */
export interface PriceBook {
  /** Of a node. */
  readonly node: (question: PriceQuestion) => ListPrice;
  /** Of something beside nodes, by its name in `aux-prices.json`; undefined: not in the list. */
  readonly item: (cloud: CloudPlan["cloud"], name: string) => ItemPrice | undefined;
}

/** Price of something beside nodes: each hour, month, GB or whatever the list counts it in. */
export interface ItemPrice {
  readonly usd: number;
  readonly unit: string;
  readonly source: string;
  readonly asOf: string;
}

/** The prices that are checked in. */
export const catalogue: PriceBook = {
  node: priceOf,
  item: (cloud, name) => auxPrices.find((price) => price.cloud === cloud && price.item === name),
};

/** USD an hour of a node: what it costs by the list, and what it cannot exceed. Null: nobody told. */
export interface NodePrice {
  readonly usdPerHour: number | null;
  readonly ceilingUsdPerHour: number | null;
  readonly source: string;
  readonly asOf: string;
}

/**
 * A spot node never costs more than the same node on demand: AWS and Azure (`spotMaxPrice: -1`) take it away before.
 * So a spot price that nobody knows has a bound all the same.
 */
export function nodePrice(
  { size, capacity, price }: { readonly size: string; readonly capacity: string; readonly price: PlannedPrice },
  region: string,
  book: PriceBook,
): NodePrice {
  const { usdPerHour, source, asOf } = price;
  if (capacity !== "spot") return { usdPerHour, ceilingUsdPerHour: usdPerHour, source, asOf };
  const onDemand = book.node({ size, region, capacity: "on-demand" }).usdPerHour;
  const ceiling = onDemand === null ? null : Math.max(onDemand, usdPerHour ?? 0);
  return { usdPerHour, ceilingUsdPerHour: ceiling, source, asOf };
}
