import * as dashboard from "@pulumi/azure-native/dashboard/index.js";
import * as monitor from "@pulumi/azure-native/monitor/index.js";
import * as operationalinsights from "@pulumi/azure-native/operationalinsights/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { concern, type Child } from "../lib/concern.ts";
import { limitedName } from "../lib/names.ts";
import { makeAlerts } from "./alerts.ts";
import type { Cluster } from "./cluster.ts";
import type { Postgres } from "./postgres.ts";
import { grant } from "./roles.ts";
import type { Scope } from "./scope.ts";

/** Days that Log Analytics keeps at least. */
const minLogDays = 30;

/** Logs of the control plane that answer who did what, and why there is no node. */
const clusterLogs = ["kube-audit-admin", "guard", "cluster-autoscaler"] as const;

export interface Observability {
  /** Address of Grafana; null where it runs in the cluster. */
  readonly grafana: pulumi.Output<string> | null;
  readonly ready: readonly pulumi.Resource[];
}

interface Context {
  readonly scope: Scope;
  readonly cluster: Cluster;
  readonly child: Child;
}

/** Logs of the control plane, alerts; with `managed`, Azure's Prometheus and Grafana. */
export function makeObservability(
  scope: Scope,
  { cluster, postgres }: { readonly cluster: Cluster; readonly postgres: Postgres | null },
): Observability {
  return concern("azure", "observability", (child) => {
    const context = { scope, cluster, child };
    const logs = controlPlaneLogs(context);
    if (scope.plan.observability.mode === "in-cluster") {
      return { grafana: null, ready: [logs, ...makeAlerts({ postgres, metrics: null }, context)] };
    }
    const workspace = new monitor.AzureMonitorWorkspace(
      "metrics",
      { ...scope.place, azureMonitorWorkspaceName: `${scope.plan.prefix}-metrics`, tags: scope.tags },
      child,
    );
    const alerts = makeAlerts({ postgres, metrics: { workspaceId: workspace.id, cluster } }, context);
    return { grafana: grafanaOf(workspace, context), ready: [logs, ...alerts, collection(workspace, context)] };
  });
}

function controlPlaneLogs({ scope, cluster, child }: Context): pulumi.Resource {
  const { plan } = scope;
  const logs = new operationalinsights.Workspace(
    "logs",
    {
      ...scope.place,
      workspaceName: `${plan.prefix}-logs`,
      sku: { name: "PerGB2018" },
      retentionInDays: Math.max(minLogDays, plan.observability.retentionDays),
      tags: scope.tags,
    },
    child,
  );
  return new monitor.DiagnosticSetting(
    "cluster-logs",
    {
      name: "control-plane",
      resourceUri: cluster.id,
      workspaceId: logs.id,
      logAnalyticsDestinationType: "Dedicated",
      logs: clusterLogs.map((category) => ({ category, enabled: true })),
    },
    child,
  );
}

/** The way of the cluster's metrics into the workspace. */
function collection(workspace: monitor.AzureMonitorWorkspace, { scope, cluster, child }: Context): pulumi.Resource {
  const { place, tags, plan } = scope;
  const endpoint = new monitor.DataCollectionEndpoint(
    "metrics-endpoint",
    { ...place, dataCollectionEndpointName: `${plan.prefix}-metrics`, kind: "Linux", tags },
    child,
  );
  const stream = "Microsoft-PrometheusMetrics";
  const rule = new monitor.DataCollectionRule(
    "metrics-rule",
    {
      ...place,
      dataCollectionRuleName: `${plan.prefix}-metrics`,
      kind: "Linux",
      dataCollectionEndpointId: endpoint.id,
      dataSources: { prometheusForwarder: [{ name: "prometheus", streams: [stream] }] },
      destinations: { monitoringAccounts: [{ name: "workspace", accountResourceId: workspace.id }] },
      dataFlows: [{ streams: [stream], destinations: ["workspace"] }],
      tags,
    },
    child,
  );
  return new monitor.DataCollectionRuleAssociation(
    "cluster-metrics",
    { associationName: "penstock-metrics", resourceUri: cluster.id, dataCollectionRuleId: rule.id },
    child,
  );
}

function grafanaOf(workspace: monitor.AzureMonitorWorkspace, { scope, child }: Context): pulumi.Output<string> {
  const { plan, place, tags } = scope;
  const grafana = new dashboard.Grafana(
    "grafana",
    {
      ...place,
      workspaceName: limitedName(`${plan.prefix}-grafana`, 23),
      sku: { name: "Standard" },
      identity: { type: "SystemAssigned" },
      properties: {
        apiKey: "Disabled",
        grafanaIntegrations: { azureMonitorWorkspaceIntegrations: [{ azureMonitorWorkspaceResourceId: workspace.id }] },
      },
      tags,
    },
    child,
  );
  const principalId = grafana.identity.apply((identity) => identity?.principalId ?? "");
  const reads = { role: "monitoringReader", on: workspace.id, to: principalId, kind: "ServicePrincipal" } as const;
  grant("grafana-reads", reads, { scope, child });
  for (const group of plan.cluster.admins) {
    grant(
      `grafana-admins-${group}`,
      { role: "grafanaAdmin", on: grafana.id, to: group, kind: "Group" },
      { scope, child },
    );
  }
  return grafana.properties.apply((properties) => properties.endpoint);
}
