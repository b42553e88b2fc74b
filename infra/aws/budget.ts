import * as budgets from "@pulumi/aws/budgets/index.js";
import { part, type Scope } from "./scope.ts";

/** When somebody is told: percent of the month's budget, spent or foreseen. */
const alerts = [
  { percent: 50, of: "ACTUAL" },
  { percent: 80, of: "ACTUAL" },
  { percent: 100, of: "ACTUAL" },
  { percent: 100, of: "FORECASTED" },
] as const;

/**
 * Alerts on what carries the stack's tag in a month. AWS sees a tag in costs once somebody has switched it on for the
 * account (docs/aws.md). They come hours late and stop nothing: the hard caps are the pools' maxima.
 */
export function makeBudget(scope: Scope): budgets.Budget {
  const { plan, tags } = scope;
  return part(
    scope,
    "budget",
    (child) =>
      new budgets.Budget(
        "budget",
        {
          name: `${plan.prefix}-monthly`,
          budgetType: "COST",
          timeUnit: "MONTHLY",
          limitAmount: String(plan.budget.monthlyUsd),
          limitUnit: "USD",
          costFilters: [{ name: "TagKeyValue", values: [`user:stack$${plan.tags["stack"] ?? plan.stack}`] }],
          notifications: alerts.map(({ percent, of }) => ({
            notificationType: of,
            comparisonOperator: "GREATER_THAN",
            threshold: percent,
            thresholdType: "PERCENTAGE",
            subscriberEmailAddresses: [...plan.budget.alertEmails],
          })),
          tags,
        },
        child,
      ),
  );
}
