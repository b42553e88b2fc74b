import * as alertsmanagement from "@pulumi/azure-native/alertsmanagement/index.js";
import * as monitor from "@pulumi/azure-native/monitor/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { alertGroups, type AlertGroup, type AlertRule } from "../lib/alerts.ts";
import type { Child } from "../lib/concern.ts";
import type { Cluster } from "./cluster.ts";
import type { Postgres } from "./postgres.ts";
import type { Scope } from "./scope.ts";

/** A PostgreSQL server stops writing when its disk is full. */
const fullDiskPercent = 80;

/** Azure counts from 0, critical, to 4. */
const severities = { page: 1, ticket: 3 } as const satisfies Record<AlertRule["severity"], number>;

interface Context {
  readonly scope: Scope;
  readonly child: Child;
}

/** What is watched: Postgres' disk where Azure runs it, and the cluster's metrics where Azure collects them. */
export interface Watched {
  readonly postgres: Postgres | null;
  readonly metrics: { readonly workspaceId: pulumi.Output<string>; readonly cluster: Cluster } | null;
}

/** Alerts that Azure evaluates. Without addresses of people they are in the portal alone. */
export function makeAlerts({ postgres, metrics }: Watched, context: Context): readonly pulumi.Resource[] {
  if (postgres === null && metrics === null) return [];
  const people = peopleOf(context);
  const actions = people === null ? [] : [{ actionGroupId: people.id }];
  return [
    ...(postgres === null ? [] : [diskAlert(postgres, actions, context)]),
    ...(metrics === null ? [] : alertGroups.map((group) => ruleGroup(group, { ...metrics, actions }, context))),
  ];
}

type Actions = readonly { readonly actionGroupId: pulumi.Output<string> }[];

function peopleOf({ scope, child }: Context): monitor.ActionGroup | null {
  const { plan, place, tags } = scope;
  const { alertEmails } = plan.observability;
  if (alertEmails.length === 0) return null;
  return new monitor.ActionGroup(
    "people",
    {
      resourceGroupName: place.resourceGroupName,
      location: "Global",
      actionGroupName: `${plan.prefix}-people`,
      groupShortName: "penstock",
      enabled: true,
      emailReceivers: alertEmails.map((emailAddress) => ({
        name: emailAddress,
        emailAddress,
        useCommonAlertSchema: true,
      })),
      tags,
    },
    child,
  );
}

function diskAlert({ serverId }: Postgres, actions: Actions, { scope, child }: Context): monitor.MetricAlert {
  const { plan, place, tags } = scope;
  return new monitor.MetricAlert(
    "postgres-disk",
    {
      resourceGroupName: place.resourceGroupName,
      location: "Global",
      ruleName: `${plan.prefix}-postgres-disk`,
      description: `PostgreSQL's disk is ${fullDiskPercent} % full: raise postgres.storageGiB in the stack.`,
      enabled: true,
      severity: severities.page,
      scopes: [serverId],
      evaluationFrequency: "PT5M",
      windowSize: "PT15M",
      criteria: { odataType: "Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria", allOf: [fullDisk] },
      actions: [...actions],
      tags,
    },
    child,
  );
}

const fullDisk = {
  criterionType: "StaticThresholdCriterion",
  name: "disk",
  metricNamespace: "Microsoft.DBforPostgreSQL/flexibleServers",
  metricName: "storage_percent",
  operator: "GreaterThan",
  threshold: fullDiskPercent,
  timeAggregation: "Average",
} as const;

/** The stack's own rules. Azure's Prometheus does not read those that are in the cluster. */
function ruleGroup(
  { name, rules }: AlertGroup,
  { workspaceId, cluster, actions }: NonNullable<Watched["metrics"]> & { readonly actions: Actions },
  { scope, child }: Context,
): alertsmanagement.PrometheusRuleGroup {
  return new alertsmanagement.PrometheusRuleGroup(
    name,
    {
      ...scope.place,
      ruleGroupName: `${scope.plan.prefix}-${name}`,
      enabled: true,
      interval: "PT1M",
      scopes: [workspaceId, cluster.id],
      clusterName: cluster.name,
      rules: rules.map(({ name: alert, expr, minutes, severity, summary, remedy }) => ({
        alert,
        enabled: true,
        expression: expr,
        for: `PT${minutes}M`,
        severity: severities[severity],
        labels: { severity },
        annotations: { summary, remedy },
        actions: [...actions],
      })),
      tags: scope.tags,
    },
    child,
  );
}
