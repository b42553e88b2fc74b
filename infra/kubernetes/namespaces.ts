import * as k8s from "@pulumi/kubernetes";
import { namespaces } from "../cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";
import { declare, type Cluster } from "./cluster.ts";
import { labels } from "./names.ts";
import { podRules } from "./pod-rules.ts";

/**
 * Pod Security of each of our namespaces. Serving is `privileged` by name only: no milder level knows a host path, and
 * agents need the node's disk; what pods there may do is held by our own admission rules (`pod-rules.ts`), which are
 * stricter. In the system namespace are what sets up disks and what hands out GPUs.
 */
const podSecurity = {
  [namespaces.serving]: "privileged",
  [namespaces.system]: "privileged",
  [namespaces.monitoring]: "baseline",
} as const;

/** Of two pods of which only one has room the higher stays. Placeholders are below what has no class at all (0). */
export const priorities = {
  gateway: { name: "penstock-gateway", value: 1_000_000, description: "The endpoint: nothing is served without it." },
  fleet: { name: "penstock-fleet", value: 1_000, description: "Replicas of models." },
  spare: { name: "penstock-spare", value: -10, description: "Keeps a node free until a replica needs it." },
} as const;

/** Namespaces with their Pod Security, quota, priorities, and rules for pods. */
export function foundation(cluster: Cluster): void {
  for (const [name, level] of Object.entries(podSecurity)) namespace(cluster, name, level);
  for (const name of namespacesOfAddOns(cluster.plan)) namespace(cluster, name, "baseline");
  for (const { name, value, description } of Object.values(priorities)) {
    declare(cluster, k8s.scheduling.v1.PriorityClass, {
      metadata: { name, labels: labels(cluster.plan, name, "priority") },
      value,
      description,
    });
  }
  quota(cluster);
  podRules(cluster);
}

function namespace(cluster: Cluster, name: string, level: "privileged" | "baseline"): void {
  const { plan } = cluster;
  const isOurs = name === namespaces.serving;
  declare(cluster, k8s.core.v1.Namespace, {
    metadata: {
      name,
      labels: {
        ...labels(plan, name, "namespace"),
        "pod-security.kubernetes.io/enforce": level,
        "pod-security.kubernetes.io/enforce-version": "latest",
        ...(isOurs ? { "pod-security.kubernetes.io/audit": "restricted" } : {}),
      },
    },
  });
}

/** Namespaces of charts that are not ours, nor Kubernetes' own. */
function namespacesOfAddOns({ addOns }: CloudPlan): string[] {
  const ours = new Set<string>([...Object.values(namespaces), "kube-system", "default"]);
  const others = addOns.flatMap(({ how, namespace: name }) => (how.kind === "helm" && !ours.has(name) ? [name] : []));
  return [...new Set(others)].toSorted();
}

/** GPUs that there are when every pool of the stack is at its maximum: what pods may ask for, however they are asked for. */
export function gpuCapacity({ pools }: CloudPlan): number {
  const ofGroups = new Map<string, number>();
  for (const { group, groupNodes, gpu } of pools) {
    ofGroups.set(group, Math.max(ofGroups.get(group) ?? 0, groupNodes.max * gpu.count));
  }
  return [...ofGroups.values()].reduce((sum, gpus) => sum + gpus, 0);
}

function quota(cluster: Cluster): void {
  const { plan } = cluster;
  const name = "penstock-limits";
  declare(cluster, k8s.core.v1.ResourceQuota, {
    metadata: { name, namespace: namespaces.serving, labels: labels(plan, name, "quota") },
    spec: { hard: { "requests.nvidia.com/gpu": String(gpuCapacity(plan)), "services.loadbalancers": "1" } },
  });
}
