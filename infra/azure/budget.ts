import * as consumption from "@pulumi/azure-native/consumption/index.js";
import * as pulumi from "@pulumi/pulumi";
import { concern } from "../lib/concern.ts";
import { nodeGroupOf } from "./cluster.ts";
import type { Scope } from "./scope.ts";

/** When somebody is told: percent of the month's budget, spent or foreseen. */
const alerts = [
  { percent: 50, of: "Actual" },
  { percent: 80, of: "Actual" },
  { percent: 100, of: "Actual" },
  { percent: 100, of: "Forecasted" },
] as const;

/**
 * Alerts on what both groups of the stack cost in a month: ours, and the one with the nodes. They come hours late and stop
 * nothing: the hard caps are the pools' maxima.
 */
export function makeBudget(scope: Scope, today: Date): consumption.Budget {
  const { plan } = scope;
  const month = today.toISOString().slice(0, "2026-11".length);
  return concern(
    "azure",
    "budget",
    (child) =>
      new consumption.Budget(
        "budget",
        {
          budgetName: `${plan.prefix}-monthly`,
          scope: pulumi.interpolate`/subscriptions/${scope.subscriptionId}`,
          category: "Cost",
          amount: plan.budget.monthlyUsd,
          timeGrain: "Monthly",
          timePeriod: { startDate: `${month}-01T00:00:00Z` },
          filter: {
            dimensions: {
              name: "ResourceGroupName",
              operator: "In",
              values: [scope.place.resourceGroupName, nodeGroupOf(plan)],
            },
          },
          notifications: Object.fromEntries(
            alerts.map(({ percent, of }) => [
              `${of}${percent}`,
              {
                enabled: true,
                operator: "GreaterThanOrEqualTo",
                threshold: percent,
                thresholdType: of,
                contactEmails: [...plan.budget.alertEmails],
              },
            ]),
          ),
        },
        // It starts in the month in which it is made, and stays.
        { ...child, ignoreChanges: ["timePeriod"] },
      ),
  );
}
