import { amountText, hourly } from "./money.ts";
import { levels, type CostReport } from "./report.ts";
import { left, number, percent, perLevel, range, right, type Table } from "./table.ts";

/** Every way to get nodes, in the order to try. */
export function variants({ pools: all }: CostReport): Table {
  return {
    kind: "table",
    id: "variants",
    title: "Kinds of node, in the order to try",
    columns: [
      left("pool"),
      left("size"),
      left("bought"),
      right("USD an hour"),
      right("at most"),
      right("nodes"),
      left("price"),
    ],
    rows: all.flatMap(({ name, variants: kinds }) =>
      kinds.map(({ size, capacity, price, nodes }) => [
        name,
        size,
        capacity,
        price.usdPerHour?.toString() ?? "unknown",
        price.ceilingUsdPerHour?.toString() ?? "unknown",
        range(nodes),
        price.usdPerHour === null ? price.source : price.asOf,
      ]),
    ),
    hasTotal: false,
  };
}

/** How nodes are bought. */
export function bought({ capacity }: CostReport): Table {
  return {
    kind: "table",
    id: "capacity",
    title: "How nodes are bought, expected",
    columns: [left("bought"), right("nodes"), right("share of node hours"), right("USD a month")],
    rows: capacity.map((each) => [each.capacity, number(each.nodes), percent(each.share), amountText(each.cost)]),
    hasTotal: false,
  };
}

/** Everything by the hour. */
export function perHour({ pools: all, fleets: some, models: ids, shared: items }: CostReport): Table {
  const rows = [
    ...all.map(({ name, cost }) => ({ kind: "pool", name, cost })),
    ...some.map(({ name, cost }) => ({ kind: "fleet", name, cost })),
    ...ids.map(({ id: name, cost }) => ({ kind: "model", name, cost })),
    ...items.map(({ name, cost }) => ({ kind: "shared", name, cost })),
  ];
  return {
    kind: "table",
    id: "hourly",
    title: "USD an hour",
    note: "Pools and shared items add up to the total; fleets and models are parts of pools.",
    columns: [left("what"), left("name"), ...perLevel],
    rows: rows.map(({ kind, name, cost }) => [kind, name, ...levels.map((level) => amountText(hourly(cost[level])))]),
    hasTotal: false,
  };
}

/** Where prices are from. */
export function sources({ sources: all }: CostReport): Table {
  return {
    kind: "table",
    id: "sources",
    title: "Where prices are from",
    columns: [left("as of"), right("days old"), left("source")],
    rows: all.map(({ asOf, ageDays, isStale, source }) => [asOf, `${ageDays}${isStale ? " (old)" : ""}`, source]),
    hasTotal: false,
  };
}
