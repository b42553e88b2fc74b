import * as k8s from "@pulumi/kubernetes";
import { namespaces } from "../cloud.ts";
import type { CloudPlan } from "../plan/plan.ts";
import type { Cluster } from "./cluster.ts";
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
    new k8s.scheduling.v1.PriorityClass(
      name,
      { metadata: { name, labels: labels(cluster.plan, name, "priority") }, value, description },
      cluster.options,
    );
  }
  quota(cluster);
  podRules(cluster);
}

function namespace({ plan, options }: Cluster, name: string, level: "privileged" | "baseline"): void {
  const isOurs = name === namespaces.serving;
  new k8s.core.v1.Namespace(
    name,
    {
      metadata: {
        name,
        labels: {
          ...labels(plan, name, "namespace"),
          "pod-security.kubernetes.io/enforce": level,
          "pod-security.kubernetes.io/enforce-version": "latest",
          ...(isOurs ? { "pod-security.kubernetes.io/audit": "restricted" } : {}),
        },
      },
    },
    options,
  );
}

/** Namespaces of charts that are not ours, nor Kubernetes' own. */
function namespacesOfAddOns({ addOns }: CloudPlan): string[] {
  const ours: readonly string[] = [...Object.values(namespaces), "kube-system", "default"];
  const others = addOns.flatMap(({ how, namespace: name }) => (how.kind === "helm" && !ours.includes(name) ? [name] : []));
  return [...new Set(others)].toSorted();
}

/** GPUs that all nodes have together when every pool is at its maximum: what pods may ask for, however they are asked for. */
export function gpuCapacity({ pools }: CloudPlan): number {
  return pools.reduce((sum, { maxNodes, gpu }) => sum + maxNodes * gpu.count, 0);
}

function quota({ plan, options }: Cluster): void {
  const name = "penstock-limits";
  new k8s.core.v1.ResourceQuota(
    name,
    {
      metadata: { name, namespace: namespaces.serving, labels: labels(plan, name, "quota") },
      spec: { hard: { "requests.nvidia.com/gpu": String(gpuCapacity(plan)), "services.loadbalancers": "1" } },
    },
    options,
  );
}
