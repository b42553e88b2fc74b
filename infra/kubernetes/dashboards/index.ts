import * as k8s from "@pulumi/kubernetes";
import { namespaces } from "../../cloud.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import { declare, type Cluster } from "../cluster.ts";
import { labels } from "../names.ts";
import { cacheDashboard } from "./cache.ts";
import { costDashboard } from "./cost.ts";
import { grafanaJson, type Dashboard } from "./dashboard.ts";
import { fleetsDashboard } from "./fleets.ts";
import { gatewayDashboard } from "./gateway.ts";
import { gpusDashboard } from "./gpus.ts";

/** The dashboards of a stack. */
export function dashboardsOf(plan: CloudPlan): readonly Dashboard[] {
  return [gatewayDashboard, fleetsDashboard, cacheDashboard, gpusDashboard, costDashboard(plan)];
}

/**
 * Dashboards as ConfigMaps that Grafana's sidecar finds by their label. A managed Grafana takes the same JSON by import:
 * `npm run manifests` writes it.
 */
export function dashboards(cluster: Cluster): void {
  const { plan } = cluster;
  for (const dashboard of dashboardsOf(plan)) {
    const { uid } = dashboard;
    const name = `dashboard-${uid}`;
    declare(cluster, k8s.core.v1.ConfigMap, {
      metadata: {
        name,
        namespace: namespaces.monitoring,
        labels: { ...labels(plan, name, "dashboard"), grafana_dashboard: "1" },
      },
      data: { [`${uid}.json`]: JSON.stringify(grafanaJson(dashboard), null, 1) },
    });
  }
}
