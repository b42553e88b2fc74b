import { defaultAssumptions } from "../../infra/cost/assumptions.ts";
import { costReport } from "../../infra/cost/cost-report.ts";
import { amountText, hourly, usdText, type Amount } from "../../infra/cost/money.ts";
import type { CostReport } from "../../infra/cost/report.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { idleShare } from "../allowed.ts";
import { levels, type Finding, type PlanRule } from "../rule.ts";

/*
 * Judged by the same report that `npm run cost` prints. Spot nodes count at their bound, the price on demand: what nobody
 * knows is never taken for zero.
 */

/** What a stack may cost. */
export const costRules: readonly PlanRule[] = [
  {
    id: "hourly-budget",
    title: "The maximum costs no more in an hour than the stack allows",
    levels: levels.always,
    severity: "critical",
    reason: "Budget alerts come hours late and stop nothing; this is the number that a mistake cannot exceed.",
    remedy:
      "Lower maxNodes of pools or replicas.max of fleets, or raise budget.hourlyUsd; name it where it is missing.",
    judges: "plan",
    judge(plan, { today }) {
      const { hourlyUsd } = plan.budget;
      if (hourlyUsd === undefined) return [{ on: "budget", problem: "budget.hourlyUsd is not set" }];
      const { hourlyTotal, pools } = reportOf(plan, today);
      const largest = pools.map(({ name, cost }) => `${name} ${amountText(hourly(cost.maximum))}`).join(", ");
      return above(hourlyTotal.maximum, hourlyUsd, `USD an hour at the maximum (${largest})`);
    },
  },
  {
    id: "monthly-budget",
    title: "What is expected of a month is within its budget",
    levels: levels.strictInProd,
    severity: "high",
    reason: "A budget that an ordinary month exceeds is one that nobody reads the alerts of.",
    remedy: "Raise budget.monthlyUsd, or lower replicas; `npm run cost` shows what the month is made of.",
    judges: "plan",
    judge: (plan, { today }) =>
      above(reportOf(plan, today).total.expected, plan.budget.monthlyUsd, "USD are expected of a month"),
  },
  {
    id: "idle-cost",
    title: "Without requests a stack costs a part of its budget at most",
    levels: levels.always,
    severity: "high",
    reason: "What costs money without serving anybody is noticed last: floors, spares, gateways, endpoints.",
    remedy: "Lower replicas.min, minNodes or warmSpares, or `network.endpoints: minimal`.",
    judges: "plan",
    judge(plan, { today, environment }) {
      const share = idleShare[environment];
      const what = `USD a month without a single request, against ${share * 100} % of the budget`;
      return above(reportOf(plan, today).total.minimum, plan.budget.monthlyUsd * share, what);
    },
  },
  {
    id: "max-gpus",
    title: "All pools together have no more GPUs than the stack allows",
    levels: levels.always,
    severity: "critical",
    reason: "GPUs are nearly all of the cost; a wrong digit in maxNodes is the most expensive typing error there is.",
    remedy: "Lower maxNodes, or raise budget.maxGpus; name it where it is missing.",
    judges: "plan",
    judge(plan, { today }) {
      const { maxGpus } = plan.budget;
      if (maxGpus === undefined) return [{ on: "budget", problem: "budget.maxGpus is not set" }];
      const gpus = reportOf(plan, today).pools.reduce((sum, pool) => sum + pool.gpus.maximum, 0);
      return gpus > maxGpus ? [{ on: "budget", problem: `${gpus} GPUs at the maximum; ${maxGpus} are allowed` }] : [];
    },
  },
  {
    id: "node-prices-known",
    title: "Every node has a price",
    levels: levels.always,
    severity: "high",
    reason: "A node without a price is left out of every sum, and so of every budget.",
    remedy: "Take a size or region with a price, or add it to infra/catalog/prices.json (`npm run refresh-prices`).",
    judges: "plan",
    judge(plan, { today }) {
      const unpriced = reportOf(plan, today).pools.flatMap(({ variants }) =>
        variants.filter(({ price }) => price.ceilingUsdPerHour === null),
      );
      const { system } = plan.cluster;
      return [
        ...unpriced.map(({ name, size }) => ({ on: name, problem: `the cost of ${size} is unknown` })),
        ...(system.price.usdPerHour === null
          ? [{ on: "system", problem: `the cost of ${system.size} is unknown` }]
          : []),
      ];
    },
  },
  {
    id: "all-prices-known",
    title: "Everything beside nodes has a price",
    levels: levels.said,
    severity: "low",
    reason: "What has no price is in no sum: the stack costs more than any figure says.",
    remedy: "Look the price up and add it to infra/catalog/aux-prices.json.",
    judges: "plan",
    judge: (plan, { today }) =>
      reportOf(plan, today)
        .shared.filter(({ cost }) => cost.maximum.unbounded.length > 0)
        .map(({ name }) => ({ on: name, problem: "its cost is unknown" })),
  },
  {
    id: "fresh-prices",
    title: "Prices are no older than the report allows",
    levels: levels.said,
    severity: "low",
    reason: "Lists change: P5 on AWS fell by nearly half within a month.",
    remedy: "`npm run refresh-prices`.",
    judges: "plan",
    judge: (plan, { today }) =>
      reportOf(plan, today)
        .sources.filter(({ isStale }) => isStale)
        .map(({ source, asOf, ageDays }) => ({ on: source, problem: `of ${asOf}, ${ageDays} days ago` })),
  },
];

/** The report is asked for by each rule; a plan's is made once. */
const reports = new WeakMap<CloudPlan, Map<string, CostReport>>();

function reportOf(plan: CloudPlan, today: string): CostReport {
  const ofPlan = reports.get(plan) ?? new Map<string, CostReport>();
  reports.set(plan, ofPlan);
  const report = ofPlan.get(today) ?? costReport(plan, defaultAssumptions(today));
  ofPlan.set(today, report);
  return report;
}

/** An amount counts with its bound; what has none is another rule's. */
function above(amount: Amount, usd: number, what: string): Finding[] {
  if (amount.highMicroUsd <= usd * 1_000_000) return [];
  return [{ on: "budget", problem: `${amountText(amount)} ${what}; ${usdText(usd * 1_000_000)} are allowed` }];
}
