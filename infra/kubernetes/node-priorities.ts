import * as k8s from "@pulumi/kubernetes";
import * as pulumi from "@pulumi/pulumi";
import { stringify } from "yaml";
import { addOn, declare, type Cluster } from "./cluster.ts";
import { labels } from "./names.ts";

/** Name that the cluster autoscaler looks for, in its own namespace; that of Azure's is Kubernetes' own. */
const name = "cluster-autoscaler-priority-expander";

/** Priority of the first variant of a pool; each further one has one less. */
const highest = 100;

/**
 * Tells the cluster autoscaler which variant of a pool to try first: reserved capacity before spot, spot before on-demand,
 * as the stack says. Where Karpenter makes the nodes, weights of its NodePools say it.
 */
export function nodePriorities(cluster: Cluster): void {
  const { plan, cloud } = cluster;
  const { nodeGroupPatterns } = cloud;
  const known = plan.pools.filter((pool) => nodeGroupPatterns[pool.name] !== undefined);
  if (known.length === 0) return;
  const namespace = addOn(plan, "cluster-autoscaler")?.namespace ?? "kube-system";
  const priorities = pulumi.all(known.map((pool) => nodeGroupPatterns[pool.name] ?? "")).apply((patterns) => {
    const byPriority = Map.groupBy(patterns.entries(), ([at]) => highest - (known[at]?.order ?? 0));
    // A map: the autoscaler reads its keys as numbers, and those of an object would be quoted.
    const lines = [...byPriority].map(
      ([priority, entries]) => [priority, entries.map(([, pattern]) => pattern)] as const,
    );
    return stringify(new Map(lines), { lineWidth: 0 });
  });
  declare(cluster, k8s.core.v1.ConfigMap, {
    metadata: { name, namespace, labels: labels(plan, name, "nodes") },
    data: { priorities },
  });
}
