import type { CloudPlan, PlannedPool } from "../../plan/plan.ts";
import { variantLabel } from "../names.ts";
import type { Dashboard, Panel } from "./dashboard.ts";
import { rate } from "./queries.ts";

const hoursOfMonth = 730;

/** Nodes of a pool that there are now. kube-state-metrics spells labels with underscores. */
function nodesOf({ name }: PlannedPool): string {
  return `(count(kube_node_labels{label_${variantLabel.replaceAll(/[^a-z]/g, "_")}="${name}"}) or vector(0))`;
}

/** What the nodes of a pool cost now, per hour. A pool without a price has no line. */
function poolCost(pool: PlannedPool): { expr: string; legend: string }[] {
  const { usdPerHour } = pool.price;
  return usdPerHour === null ? [] : [{ expr: `${nodesOf(pool)} * ${usdPerHour}`, legend: pool.name }];
}

function sum(queries: readonly { readonly expr: string }[]): string {
  return queries.length === 0 ? "vector(0)" : queries.map(({ expr }) => expr).join(" + ");
}

/** What it costs, what of that is idle, and what tenants are charged. Prices are the plan's. */
export function costDashboard(plan: CloudPlan): Dashboard {
  const priced = plan.pools.flatMap(poolCost);
  const unpriced = plan.pools.filter(({ price }) => price.usdPerHour === null).map(({ name }) => name);
  const caveat = unpriced.length === 0 ? "" : ` Without a price, and so not in it: ${unpriced.join(", ")}.`;
  return {
    uid: "penstock-cost",
    title: "Penstock: cost",
    rows: [
      { title: "Nodes with GPUs", panels: [...totals(plan, priced, caveat), ...poolPanels(plan, priced, caveat)] },
      { title: "Tenants and models", panels: usagePanels(priced) },
    ],
  };
}

function totals({ budget }: CloudPlan, priced: Panel["queries"], caveat: string): Panel[] {
  return [
    {
      title: "USD per hour now",
      about: `Nodes that there are, at the list prices of the plan.${caveat}`,
      unit: "currencyUSD",
      as: "number",
      queries: [{ expr: sum(priced), legend: "per hour" }],
    },
    {
      title: "USD per month at this rate",
      about: `The budget is ${budget.monthlyUsd} USD.${caveat}`,
      unit: "currencyUSD",
      as: "number",
      queries: [
        { expr: `(${sum(priced)}) * ${hoursOfMonth}`, legend: "at this rate" },
        { expr: `vector(${budget.monthlyUsd})`, legend: "budget" },
      ],
    },
  ];
}

function poolPanels({ pools }: CloudPlan, priced: Panel["queries"], caveat: string): Panel[] {
  return [
    {
      title: "Nodes",
      about: "Of each pool.",
      unit: "short",
      stacked: true,
      queries: pools.map((pool) => ({ expr: nodesOf(pool), legend: pool.name })),
    },
    {
      title: "USD per hour by pool",
      about: `At the list prices of the plan.${caveat}`,
      unit: "currencyUSD",
      stacked: true,
      queries: priced,
    },
    {
      title: "Share of GPUs that idle",
      about: "Nothing ran on them for ten minutes: lower minima, or models that may sleep.",
      unit: "percentunit",
      queries: [
        {
          expr: "(count(max_over_time(DCGM_FI_DEV_GPU_UTIL[10m]) == 0) or vector(0)) / count(DCGM_FI_DEV_GPU_UTIL)",
          legend: "idle",
        },
      ],
    },
    {
      title: "What replicas do",
      about: "Replica seconds per second of each model: idle ones are paid for too.",
      unit: "short",
      stacked: true,
      queries: [
        {
          expr: "sum by (phase) (max by (model, phase) (deriv(penstock_gateway_model_replica_seconds[10m])))",
          legend: "{{phase}}",
        },
      ],
    },
  ];
}

function usagePanels(priced: readonly { readonly expr: string }[]): Panel[] {
  const charged = "penstock_gateway_cost_usd_total";
  const completion = 'penstock_gateway_tokens_total{kind="completion"}';
  return [
    {
      title: "Charged by tenant, USD per hour",
      about: "At the prices of the stack's models.",
      unit: "currencyUSD",
      stacked: true,
      queries: [{ expr: `sum by (tenant) (${rate(charged, "1h")}) * 3600`, legend: "{{tenant}}" }],
    },
    {
      title: "Charged by model, USD per hour",
      about: "At the prices of the stack's models.",
      unit: "currencyUSD",
      stacked: true,
      queries: [{ expr: `sum by (model) (${rate(charged, "1h")}) * 3600`, legend: "{{model}}" }],
    },
    {
      title: "USD per million completion tokens",
      about: "What the nodes cost, over what they answered: utilisation decides it more than the size does.",
      unit: "currencyUSD",
      queries: [
        {
          expr: `(${sum(priced)}) / (sum(${rate(completion, "1h")}) * 3600 > 0) * 1000000`,
          legend: "nodes",
        },
      ],
    },
    {
      title: "Charged today",
      about: "By tenant, the last 24 hours.",
      unit: "currencyUSD",
      as: "table",
      queries: [{ expr: `sum by (tenant, model) (increase(${charged}[24h]))`, legend: "{{tenant}} {{model}}" }],
    },
  ];
}
