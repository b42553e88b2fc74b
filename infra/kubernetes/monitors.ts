import type { IPodMonitor } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PodMonitor";
import type { IPrometheusRule } from "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule";
import { envNames } from "../../runtime/contracts/names.ts";
import { namespaces } from "../cloud.ts";
import { alertGroups } from "../lib/alerts.ts";
import { typedResource } from "../lib/custom-resource.ts";
import type { CloudPlan } from "../plan/plan.ts";
import { addOn, type Cluster } from "./cluster.ts";
import { agentName, gatewayName, labels, selectorLabels } from "./names.ts";
import { secretNames } from "./secrets.ts";

/** The same API under two names: the Prometheus operator's, and Azure's for its managed collector. */
type ApiGroup = "monitoring.coreos.com/v1" | "azmonitoring.coreos.com/v1";
type Monitor = Omit<IPodMonitor, "apiVersion"> & { readonly apiVersion: ApiGroup };
type MonitorSpec = NonNullable<IPodMonitor["spec"]>;

/** Who scrapes: our own Prometheus, Azure's collector, or nobody. */
function apiGroupOf(plan: CloudPlan): ApiGroup | null {
  if (addOn(plan, "kube-prometheus-stack") !== undefined) return "monitoring.coreos.com/v1";
  return plan.cloud === "azure" && plan.observability.mode === "managed" ? "azmonitoring.coreos.com/v1" : null;
}

/** What is scraped, and the alert rules where a Prometheus in the cluster evaluates them. */
export function monitors(cluster: Cluster): void {
  const { plan } = cluster;
  const group = apiGroupOf(plan);
  if (group === null) return;
  monitor(cluster, group, { name: gatewayName, ...gatewayMonitor() });
  monitor(cluster, group, { name: agentName, ...agentMonitor() });
  const exporter = addOn(plan, "dcgm-exporter");
  if (exporter !== undefined) {
    monitor(cluster, group, { name: "dcgm-exporter", namespace: exporter.namespace, spec: gpuMonitor });
  }
  if (group === "monitoring.coreos.com/v1") rules(cluster);
}

interface Monitored {
  readonly name: string;
  readonly namespace: string;
  readonly spec: MonitorSpec;
}

function monitor({ plan, options }: Cluster, apiVersion: ApiGroup, { name, namespace, spec }: Monitored): void {
  typedResource<Monitor>(
    name,
    {
      apiVersion,
      kind: "PodMonitor",
      metadata: { name, namespace, labels: labels(plan, name, "monitor") },
      spec,
    },
    options,
  );
}

/** The gateway's certificate is for its public name, and Prometheus asks each pod by address: the network policy vouches. */
function gatewayMonitor(): Omit<Monitored, "name"> {
  return {
    namespace: namespaces.serving,
    spec: {
      selector: { matchLabels: selectorLabels(gatewayName) },
      podMetricsEndpoints: [
        {
          port: "https",
          path: "/metrics",
          scheme: "https",
          interval: "15s",
          tlsConfig: { insecureSkipVerify: true },
          authorization: { type: "Bearer", credentials: { name: secretNames.gateway, key: envNames.apiKey } },
        },
      ],
    },
  };
}

function agentMonitor(): Omit<Monitored, "name"> {
  return {
    namespace: namespaces.serving,
    spec: {
      selector: { matchLabels: selectorLabels(agentName) },
      podTargetLabels: ["penstock.dev/fleet"],
      podMetricsEndpoints: [
        {
          port: "agent",
          path: "/metrics",
          interval: "15s",
          authorization: { type: "Bearer", credentials: { name: secretNames.agent, key: envNames.agentToken } },
        },
      ],
    },
  };
}

/** The exporter names the pod that has the GPU; its own name is of no interest. */
const gpuMonitor: MonitorSpec = {
  selector: { matchLabels: selectorLabels("dcgm-exporter") },
  podMetricsEndpoints: [{ port: "metrics", path: "/metrics", interval: "15s", honorLabels: true }],
};

function rules({ plan, options }: Cluster): void {
  const name = "penstock";
  typedResource<IPrometheusRule>(
    name,
    {
      apiVersion: "monitoring.coreos.com/v1",
      kind: "PrometheusRule",
      metadata: { name, namespace: namespaces.monitoring, labels: labels(plan, name, "alerts") },
      spec: {
        groups: alertGroups.map((group) => ({
          name: group.name,
          rules: group.rules.map((rule) => ({
            alert: rule.name,
            expr: rule.expr,
            for: `${rule.minutes}m`,
            labels: { severity: rule.severity, stack: plan.stack },
            annotations: { summary: rule.summary, description: rule.remedy },
          })),
        })),
      },
    },
    options,
  );
}
