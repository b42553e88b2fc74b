import type { CloudPlan } from "../plan/plan.ts";
import { assumptionLines, type Assumptions } from "./assumptions.ts";
import { fleetCosts, modelCosts } from "./fleets.ts";
import { amountText, hoursPerMonth, hourly, sumOf, times, usdText, type Amount } from "./money.ts";
import { pricedPools } from "./pools.ts";
import { catalogue, type PriceBook } from "./prices.ts";
import {
  eachLevel,
  type CapacityShare,
  type CostReport,
  type Levels,
  type PoolCost,
  type PriceSource,
  type SharedCost,
} from "./report.ts";
import { sharedCosts } from "./shared.ts";

/**
 * What a plan costs: pure, the same for the same input. Every amount names what in it has no price; nothing unknown
 * counts as zero. `prices` are the checked-in catalogue unless a caller brings others.
 */
export function costReport(plan: CloudPlan, assumptions: Assumptions, prices: PriceBook = catalogue): CostReport {
  const priced = pricedPools(plan, prices, assumptions);
  const pools = priced.map(({ pool }) => pool);
  const fleets = fleetCosts(plan, priced, assumptions);
  const shared = sharedCosts(plan, prices, { assumptions, pools });
  const total = eachLevel((level) => sumOf([...pools, ...shared].map(({ cost }) => cost[level])));
  return {
    version: 1,
    stack: plan.stack,
    displayName: plan.displayName,
    cloud: plan.cloud,
    environment: plan.environment,
    region: plan.region,
    currency: "USD",
    hoursPerMonth,
    tags: plan.tags,
    assumptions,
    assumptionLines: assumptionLines(assumptions),
    total,
    hourlyTotal: eachLevel((level) => hourly(total[level])),
    pools,
    fleets,
    models: modelCosts(plan, fleets, assumptions),
    shared,
    hiddenFloor: eachLevel((level) =>
      sumOf(shared.filter((item) => item.isHiddenFloor).map((item) => item.cost[level])),
    ),
    idle: times(sumOf(pools.map(({ cost }) => cost.minimum)), 1 - assumptions.utilisation),
    capacity: capacityShares(pools),
    budget: budgetOf(plan, pools, total),
    sources: sourcesOf(pools, shared, assumptions),
    unknown: [...new Set([...eachUnknown(total), ...unpublished(plan)])],
    notIncluded: notIncluded(plan, prices),
  };
}

function eachUnknown(total: Levels<Amount>): string[] {
  return Object.values(total).flatMap(({ unknown }) => unknown);
}

function unpublished(plan: CloudPlan): string[] {
  return plan.fleets
    .filter(({ throughput }) => throughput === null)
    .map(
      ({ name, models }) => `cost per million tokens of fleet ${name} (${models.join(", ")}): no published throughput`,
    );
}

/** Hours of nodes by the way they are bought. */
function capacityShares(pools: readonly PoolCost[]): CapacityShare[] {
  const variants = pools.flatMap((pool) => pool.variants);
  const all = variants.reduce((sum, { nodes }) => sum + nodes.expected, 0);
  return [...Map.groupBy(variants, ({ capacity }) => capacity)].map(([capacity, those]) => {
    const nodes = those.reduce((sum, each) => sum + each.nodes.expected, 0);
    const cost = sumOf(those.map((each) => each.cost.expected));
    return { capacity, nodes, share: all === 0 ? 0 : nodes / all, cost };
  });
}

/** The budget beside what the stack can cost, and what keeps it there. */
function budgetOf({ budget }: CloudPlan, pools: readonly PoolCost[], total: Levels<Amount>): CostReport["budget"] {
  const { monthlyUsd, hourlyUsd, maxGpus } = budget;
  const gpus = pools.reduce((sum, pool) => sum + pool.gpus.maximum, 0);
  const most = total.maximum;
  return {
    monthlyUsd,
    hourlyUsd: hourlyUsd ?? null,
    maxGpus: maxGpus ?? null,
    lines: [
      `Budget: ${usdText(monthlyUsd * 1_000_000)} USD a month. The cloud sends alerts at 50, 80 and 100 % and stops nothing; ` +
        `at the maximum the stack costs ${amountText(most)} USD a month: ${verdict(most, monthlyUsd)} it.`,
      ...(hourlyUsd === undefined
        ? []
        : [
            `Hourly: ${usdText(hourlyUsd * 1_000_000)} USD; at the maximum ${amountText(hourly(most))} USD: ` +
              `${verdict(hourly(most), hourlyUsd)} it. A plan above it is refused by policy.`,
          ]),
      `GPUs: at most ${gpus}${maxGpus === undefined ? "" : `, ${gpus > maxGpus ? "above" : "within"} the budget's ${maxGpus}`}.`,
      "Hard caps are the pools' maxima:",
      ...pools.map(({ name, cap }) => capLine(name, cap)),
    ],
  };
}

function capLine(name: string, { nodes, cloudNodes, enforcedBy }: PoolCost["cap"]): string {
  const several = cloudNodes > nodes ? `; its kinds of node have maxima of their own, together ${cloudNodes}` : "";
  return `${name}: ${nodes} node${nodes === 1 ? "" : "s"} by its fleets' maximum replicas, and ${enforcedBy}${several}.`;
}

function verdict({ lowMicroUsd, highMicroUsd, unbounded }: Amount, usd: number): string {
  if (lowMicroUsd > usd * 1_000_000) return "above";
  if (highMicroUsd > usd * 1_000_000) return "perhaps above";
  return unbounded.length === 0 ? "within" : `but for what has no price (${unbounded.join(", ")}), within`;
}

/** Where prices are from and how old they are. */
function sourcesOf(
  pools: readonly PoolCost[],
  shared: readonly SharedCost[],
  { today, staleAfterDays }: Assumptions,
): PriceSource[] {
  const nodes = pools.flatMap(({ variants }) => variants.map(({ price }) => price));
  const priced = [
    ...nodes.filter(({ usdPerHour }) => usdPerHour !== null),
    ...shared.filter(({ usdPerUnit, asOf }) => usdPerUnit !== null && asOf !== ""),
  ];
  const byText = new Map(priced.map(({ source, asOf }) => [`${asOf} ${source}`, { source, asOf }]));
  return [...byText.values()]
    .map(({ source, asOf }) => {
      const ageDays = Math.round((Date.parse(today) - Date.parse(asOf)) / 86_400_000);
      return { source, asOf, ageDays, isStale: ageDays > staleAfterDays };
    })
    .toSorted((a, b) => a.asOf.localeCompare(b.asOf) || a.source.localeCompare(b.source));
}

/** Floors by the clock are on average somewhere between minimum and maximum: whoever needs more says `--what-if expected`. */
function scheduled({ fleets }: CloudPlan): string[] {
  const names = fleets.filter(({ scaling }) => scaling.schedule.length > 0).map(({ name }) => name);
  if (names.length === 0) return [];
  return [
    `Floors by the clock of ${names.join(", ")}: the minimum is that of hours without one (--what-if expected=SHARE).`,
  ];
}

function notIncluded(plan: CloudPlan, book: PriceBook): string[] {
  const at = (item: string, unit: string): string => {
    const price = book.item(plan.cloud, item);
    return price === undefined ? "price unknown" : `${price.usd} USD a ${unit}`;
  };
  const heaviest = plan.models.toSorted((a, b) => b.weightsGiB - a.weightsGiB)[0];
  const isPrivate = plan.cloud === "azure" && (plan.environment === "prod" || plan.network.endpoints === "full");
  const perGb = book.item(plan.cloud, "Private endpoint data, each direction (first PB)")?.usd;
  return [
    "Answers to the internet (egress), and data between zones and regions: no price collected.",
    `Data through NAT: ${at("NAT gateway data", "GB")}.`,
    ...(isPrivate && heaviest !== undefined && perGb !== undefined
      ? [
          `Data through private endpoints: ${perGb} USD a GB each direction; ` +
            `loading ${heaviest.id} from the cache (${heaviest.weightsGiB} GiB) costs ${(heaviest.weightsGiB * perGb).toFixed(2)} USD.`,
        ]
      : []),
    ...scheduled(plan),
    "Container registry: the stack makes none; images come from where `images.registry` says.",
    "Old versions in the model cache, backups, requests to storage, support plans, taxes.",
    ...(/^(us-|(east|west|central|northcentral|southcentral|westcentral)us)/.test(plan.region)
      ? []
      : [`Network, storage and logs are at prices of US regions; in ${plan.region} they differ.`]),
  ];
}
