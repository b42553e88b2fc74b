import type { IEC2NodeClass } from "@kubernetes-models/karpenter/karpenter.k8s.aws/v1/EC2NodeClass";
import type { INodePool } from "@kubernetes-models/karpenter/karpenter.sh/v1/NodePool";
import { typedResource } from "../lib/custom-resource.ts";
import type { CloudPlan, PlannedPool } from "../plan/plan.ts";
import { agentGraceSeconds } from "./agent-pod.ts";
import type { Cluster } from "./cluster.ts";
import { labels } from "./names.ts";

/** What Karpenter calls each way to buy; capacity blocks are reservations to it. */
const capacityTypes = {
  reserved: "reserved",
  block: "reserved",
  spot: "spot",
  "on-demand": "on-demand",
} as const satisfies Record<PlannedPool["capacity"], string>;

/** An empty GPU node waits this long for the next replica: about as long as the next node would take. */
const emptyFor = "5m";
/** Nodes are replaced by fresh ones with the latest patches after so long, one at a time. */
const oldestNode = "720h";

/** What makes nodes of a pool on EKS: the shape of a node, and when there are some. */
export function karpenterPool(cluster: Cluster, pool: PlannedPool): void {
  nodeClass(cluster, pool);
  nodePool(cluster, pool);
}

function nodeClass({ plan, options }: Cluster, pool: PlannedPool): void {
  const discovery = [{ tags: { "karpenter.sh/discovery": plan.cluster.name } }];
  typedResource<IEC2NodeClass>(
    pool.name,
    {
      apiVersion: "karpenter.k8s.aws/v1",
      kind: "EC2NodeClass",
      metadata: { name: pool.name, labels: labels(plan, pool.name, "pool") },
      spec: {
        // Karpenter takes the variant with NVIDIA's driver for sizes with GPUs.
        amiSelectorTerms: [{ alias: "al2023@latest" }],
        role: `${plan.prefix}-karpenter-node`,
        subnetSelectorTerms: discovery,
        securityGroupSelectorTerms: discovery,
        associatePublicIPAddress: false,
        // All local disks as one, at /mnt/k8s-disks/0; images and pods' scratch space are on it too.
        ...(pool.node.nvmeGiB > 0 ? { instanceStorePolicy: "RAID0" as const } : {}),
        blockDeviceMappings: [
          {
            deviceName: "/dev/xvda",
            rootVolume: true,
            ebs: {
              volumeSize: `${pool.node.osDiskGiB}Gi`,
              volumeType: "gp3",
              encrypted: true,
              deleteOnTermination: true,
            },
          },
        ],
        metadataOptions: { httpEndpoint: "enabled", httpTokens: "required", httpPutResponseHopLimit: 1 },
        ...(pool.reservationId === null ? {} : { capacityReservationSelectorTerms: [{ id: pool.reservationId }] }),
        ...(pool.placementGroup ? { placementGroupSelector: { name: `${plan.prefix}-${pool.name}` } } : {}),
        tags: { ...plan.tags, Name: `${plan.prefix}-${pool.name}` },
      },
    },
    options,
  );
}

function nodePool({ plan, options }: Cluster, pool: PlannedPool): void {
  typedResource<INodePool>(
    pool.name,
    {
      apiVersion: "karpenter.sh/v1",
      kind: "NodePool",
      metadata: { name: pool.name, labels: labels(plan, pool.name, "pool") },
      spec: {
        // The first in the try-order has the highest weight.
        weight: Math.max(1, 100 - pool.order),
        // The hard cap of what it can cost.
        limits: { "nvidia.com/gpu": String(pool.maxNodes * pool.gpu.count) },
        disruption: {
          consolidationPolicy: "WhenEmpty",
          consolidateAfter: emptyFor,
          budgets: [
            { nodes: "1" },
            // A new image of the nodes is no reason to stop a replica: nodes get it when they are new anyway.
            { nodes: "0", reasons: ["Drifted"] },
          ],
        },
        template: {
          metadata: { labels: { ...pool.labels } },
          spec: {
            nodeClassRef: { group: "karpenter.k8s.aws", kind: "EC2NodeClass", name: pool.name },
            expireAfter: oldestNode,
            terminationGracePeriod: `${drainSecondsOf(plan, pool)}s`,
            taints: pool.taints.map((taint) => ({ ...taint })),
            requirements: [
              among("node.kubernetes.io/instance-type", [pool.size]),
              among("karpenter.sh/capacity-type", [capacityTypes[pool.capacity]]),
              ...(pool.zones.length === 0 ? [] : [among("topology.kubernetes.io/zone", pool.zones)]),
            ],
          },
        },
      },
    },
    options,
  );
}

function among(key: string, values: readonly string[]) {
  return { key, operator: "In" as const, values: [...values] };
}

/** A node waits for its slowest replica, and a minute more. */
function drainSecondsOf({ fleets }: CloudPlan, pool: PlannedPool): number {
  return 60 + Math.max(0, ...fleets.filter((fleet) => fleet.pool === pool.group).map(agentGraceSeconds));
}
