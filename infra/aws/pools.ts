import * as ec2 from "@pulumi/aws/ec2/index.js";
import * as eks from "@pulumi/aws/eks/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import type { PlannedPool } from "../plan/plan.ts";
import { interfacesOf } from "./efa.ts";
import { subnetsIn } from "./network.ts";
import { templateOf, versionOf, type NodeContext } from "./nodes.ts";
import { named, part, type AwsPlan, type Child, type Scope } from "./scope.ts";
import { mutualGroup, type MadeGroup } from "./security-groups.ts";
import { nodeConfig } from "./user-data.ts";

/** What EKS calls each way to buy. Reserved capacity is on demand, aimed at the reservation. */
const capacityTypes = {
  "on-demand": "ON_DEMAND",
  reserved: "ON_DEMAND",
  spot: "SPOT",
  block: "CAPACITY_BLOCK",
} as const satisfies Record<PlannedPool["capacity"], string>;

/**
 * Node groups by the names of the plan's pools: those that Karpenter does not make. What Karpenter needs of a pool beside
 * its objects in the cluster, a placement group, is made here too.
 */
export function makePools(
  scope: Scope,
  context: Omit<NodeContext, "scope" | "child"> & { readonly after: readonly pulumi.Resource[] },
): readonly pulumi.Resource[] {
  return part(scope, "pools", (child) => {
    const groups = scope.plan.pools.filter(({ provisioner }) => provisioner === "node-group");
    const between = { vpcId: context.network.vpcId, description: "EFA between nodes of a replica" };
    const efa = groups.some(({ node }) => node.efaInterfaces > 0)
      ? mutualGroup("efa", between, { scope, child })
      : null;
    return scope.plan.pools.flatMap((pool): pulumi.Resource[] => {
      const near = placementGroup(pool, scope, child);
      if (pool.provisioner !== "node-group") return near === null ? [] : [near];
      return [makePool(pool, { ...context, scope, child, near, efa })];
    });
  });
}

/** EKS calls the scaling group of a node group `eks-<node group>-<uuid>`. */
export function nodeGroupPatterns({ pools }: AwsPlan): CloudOutputs["nodeGroupPatterns"] {
  const made = pools.filter(({ provisioner }) => provisioner === "node-group");
  return Object.fromEntries(made.map(({ name }) => [name, `^eks-${name}-[0-9a-f-]{36}$`]));
}

type PoolContext = NodeContext & {
  readonly after: readonly pulumi.Resource[];
  readonly near: ec2.PlacementGroup | null;
  readonly efa: MadeGroup | null;
};

function makePool(pool: PlannedPool, context: PoolContext): eks.NodeGroup {
  const { scope, cluster, network, role, efa, child, after } = context;
  const name = `pool-${pool.name}`;
  const renamed = aliasesOf(pool, "pool");
  const template = new ec2.LaunchTemplate(
    name,
    {
      // Shown as its size: another name of the pool must be no reason to replace nodes.
      ...templateOf(pool.size, pool.node.osDiskGiB, scope),
      ...machine(pool, context),
      name: `${scope.plan.prefix}-${pool.name}`,
    },
    { ...child, ...renamed, ignoreChanges: ["name"] },
  );
  return new eks.NodeGroup(
    name,
    {
      clusterName: cluster.name,
      nodeGroupName: pool.name,
      nodeRoleArn: role.role.arn,
      subnetIds: subnetsIn(network, pool.zones),
      version: scope.plan.cluster.kubernetesVersion,
      amiType: "AL2023_x86_64_NVIDIA",
      capacityType: capacityTypes[pool.capacity],
      launchTemplate: versionOf(template),
      scalingConfig: { minSize: pool.minNodes, maxSize: pool.maxNodes, desiredSize: pool.minNodes },
      labels: { ...pool.labels },
      taints: pool.taints.map(({ key, value }) => ({ key, value, effect: "NO_SCHEDULE" })),
      // One node goes before the next comes: nobody has a spare GPU node.
      updateConfig: { maxUnavailable: 1, updateStrategy: "MINIMAL" },
      nodeRepairConfig: { enabled: true },
      tags: scope.tags,
    },
    {
      ...child,
      ...renamed,
      dependsOn: [...role.ready, ...network.ready, ...cluster.ready, ...(efa?.ready ?? []), ...after],
      // The count is the autoscaler's. A pool that was renamed keeps the name that EKS knows it by, and its nodes.
      ignoreChanges: ["scalingConfig.desiredSize", "nodeGroupName"],
    },
  );
}

/** What of a template is the pool's own: the machine, how it is bought, where it is, its disks and interfaces. */
function machine(pool: PlannedPool, { near, efa, cluster }: PoolContext): Partial<ec2.LaunchTemplateArgs> {
  return {
    instanceType: pool.size,
    ...nodeConfig(pool),
    ...purchase(pool),
    ...(near === null ? {} : { placement: { groupName: near.name } }),
    ...(efa === null ? {} : interfacesOf(pool, [cluster.securityGroupId, efa.id])),
  };
}

function purchase({ capacity, reservationId }: PlannedPool): Partial<ec2.LaunchTemplateArgs> {
  if (reservationId === null || (capacity !== "reserved" && capacity !== "block")) return {};
  return {
    capacityReservationSpecification: { capacityReservationTarget: { capacityReservationId: reservationId } },
    ...(capacity === "block" ? { instanceMarketOptions: { marketType: "capacity-block" } } : {}),
  };
}

/** Nodes close together. Capacity that was bought is where it is: a group of ours would keep nodes from using it. */
function placementGroup(pool: PlannedPool, scope: Scope, child: Child): ec2.PlacementGroup | null {
  const isBought = pool.capacity === "reserved" || pool.capacity === "block";
  const isOurs = pool.provisioner === "node-group";
  if (!pool.placementGroup || (isBought && isOurs)) return null;
  return new ec2.PlacementGroup(
    `near-${pool.name}`,
    { name: `${scope.plan.prefix}-${pool.name}`, strategy: "cluster", tags: named(scope, pool.name) },
    // Karpenter looks for the group by the pool's present name.
    { ...child, ...aliasesOf(pool, "near"), ...(isOurs ? { ignoreChanges: ["name"] } : {}) },
  );
}

function aliasesOf({ formerNames }: PlannedPool, kind: "pool" | "near"): pulumi.CustomResourceOptions {
  return { aliases: formerNames.map((name) => ({ name: `${kind}-${name}` })) };
}
