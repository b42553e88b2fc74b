import * as k8s from "@pulumi/kubernetes";
import { namespaces } from "../cloud.ts";
import type { PlannedPool } from "../plan/plan.ts";
import { tolerationsOf } from "./agent-pod.ts";
import { declare, type Cluster } from "./cluster.ts";
import { restrictedContainer, restrictedPod } from "./containers.ts";
import { labels, podLabels, selectorLabels } from "./names.ts";
import { priorities } from "./namespaces.ts";

/**
 * Keeps warm spare nodes: pods that take all GPUs of a node and give way at once to a replica, whereupon they wait for a
 * new node, and so it is made before it is needed.
 */
export function placeholders(cluster: Cluster, pool: PlannedPool): void {
  const { plan } = cluster;
  const name = `spare-${pool.name}`;
  declare(cluster, k8s.apps.v1.Deployment, {
    // A spare node may be out of stock; nothing depends on it.
    metadata: {
      name,
      namespace: namespaces.serving,
      labels: labels(plan, name, "placeholder"),
      annotations: { "pulumi.com/skipAwait": "true" },
    },
    spec: {
      replicas: pool.warmSpares,
      revisionHistoryLimit: 1,
      selector: { matchLabels: selectorLabels(name) },
      // Never one more than was asked for: each is a node.
      strategy: { type: "Recreate" },
      template: {
        metadata: { labels: podLabels(plan, name, "placeholder") },
        spec: {
          automountServiceAccountToken: false,
          enableServiceLinks: false,
          priorityClassName: priorities.spare.name,
          terminationGracePeriodSeconds: 0,
          securityContext: restrictedPod(),
          nodeSelector: { ...pool.labels },
          tolerations: tolerationsOf([pool]),
          containers: [
            {
              name: "wait",
              // The node has it: it is what sets up its disks.
              image: plan.gateway.image,
              command: ["sleep", "infinity"],
              resources: resources(pool),
              securityContext: restrictedContainer,
            },
          ],
        },
      },
    },
  });
}

function resources({ gpu }: PlannedPool) {
  const all = { cpu: "10m", memory: "32Mi", ...(gpu.count === 0 ? {} : { "nvidia.com/gpu": String(gpu.count) }) };
  return { requests: all, limits: all };
}
