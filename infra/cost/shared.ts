import type { CloudPlan } from "../plan/plan.ts";
import { amountOf, hoursPerMonth, zero, type Amount } from "./money.ts";
import type { PriceBook } from "./prices.ts";
import { eachLevel, type Levels, type SharedCost } from "./report.ts";
import { itemsOfAws } from "./shared-aws.ts";
import { itemsOfAzure } from "./shared-azure.ts";
import type { SharedContext, SharedItem } from "./shared-items.ts";

/** What every fleet shares: system nodes, control plane, network, storage, stores, logs. */
export function sharedCosts(
  plan: CloudPlan,
  book: PriceBook,
  { assumptions, pools }: Pick<SharedContext, "assumptions" | "pools">,
): SharedCost[] {
  const { minNodes, maxNodes } = plan.cluster.system;
  const systemNodes: Levels<number> = {
    minimum: minNodes,
    expected: minNodes + assumptions.expected * (maxNodes - minNodes),
    maximum: maxNodes,
  };
  const context = { assumptions, pools, systemNodes };
  const own = plan.cloud === "azure" ? itemsOfAzure(plan, context) : itemsOfAws(plan, context);
  return [systemItem(plan, systemNodes), ...own, ...storeItems(plan)].map((item) => priced(item, plan, book));
}

function systemItem({ cluster: { system } }: CloudPlan, quantity: Levels<number>): SharedItem {
  const { usdPerHour, source, asOf } = system.price;
  return {
    id: "system-nodes",
    name: `System nodes (${system.size})`,
    category: "Compute",
    quantity,
    unit: "node",
    price: { usd: usdPerHour, source, asOf, isHourly: true },
    isHiddenFloor: false,
  };
}

/** Managed Redis and PostgreSQL; in the cluster they are pods on the system nodes. */
function storeItems({ redis, postgres }: CloudPlan): SharedItem[] {
  const stores = [
    { id: "redis", title: "Redis", store: redis },
    { id: "postgres", title: "PostgreSQL", store: postgres },
  ];
  return stores
    .filter(({ store }) => store.mode === "managed")
    .map(({ id, title, store }) => ({
      id,
      name: `${title} (${store.sku}${store.highAvailability ? ", two nodes" : ""})`,
      category: "Databases",
      quantity: eachLevel(() => 1),
      unit: "server",
      price: {
        usd: store.price.usdPerHour,
        source: store.price.source,
        asOf: store.price.asOf,
        isHourly: true,
      },
      isHiddenFloor: false,
    }));
}

function priced(item: SharedItem, { cloud }: CloudPlan, book: PriceBook): SharedCost {
  const { price, ...rest } = item;
  const found = "item" in price ? book.item(cloud, price.item) : price;
  const usd = found?.usd ?? null;
  const { source, asOf } = found ?? { source: "no price in the catalogue", asOf: "" };
  const hours = price.isHourly ? hoursPerMonth : 1;
  const cost = (quantity: number): Amount =>
    quantity === 0 ? zero : amountOf(item.name, usd === null ? null : usd * quantity * hours);
  return {
    ...rest,
    unit: price.isHourly ? `${item.unit}, by the hour` : item.unit,
    usdPerUnit: usd,
    source,
    asOf,
    cost: eachLevel((level) => cost(item.quantity[level])),
  };
}
