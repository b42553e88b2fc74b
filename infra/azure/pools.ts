import * as compute from "@pulumi/azure-native/compute/index.js";
import * as aks from "@pulumi/azure-native/containerservice/index.js";
import * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import { concern, type Child } from "../lib/concern.ts";
import { shortHash } from "../lib/names.ts";
import type { PlannedPool } from "../plan/plan.ts";
import type { Cluster } from "./cluster.ts";
import type { Network } from "./network.ts";
import { grant } from "./roles.ts";
import type { AzurePlan, Scope } from "./scope.ts";

/** What AKS puts on spot nodes by itself. Written down, because what is read back must be what was written. */
const spotMark = "kubernetes.azure.com/scalesetpriority";

/** A node gets its fleets' longest drain and then some before an upgrade gives up on it. */
const drainMarginMinutes = 5;

/** Agent pools by the names of the plan's pools. All are made at once. */
export function makePools(
  scope: Scope,
  { cluster, network }: { readonly cluster: Cluster; readonly network: Network },
): ReadonlyMap<string, aks.AgentPool> {
  const names = poolNames(scope.plan);
  return concern("azure", "pools", (child) => {
    const context = { scope, cluster, network, child };
    return new Map(scope.plan.pools.map((pool) => [pool.name, makePool(pool, names.get(pool.name) ?? "", context)]));
  });
}

/** AKS calls the scale set of an agent pool `aks-<agent pool>-<digits>-vmss`. */
export function nodeGroupPatterns(pools: ReadonlyMap<string, aks.AgentPool>): CloudOutputs["nodeGroupPatterns"] {
  return Object.fromEntries([...pools].map(([name, pool]) => [name, pulumi.interpolate`^aks-${pool.name}-.*`]));
}

interface Context {
  readonly scope: Scope;
  readonly cluster: Cluster;
  readonly network: Network;
  readonly child: Child;
}

function makePool(pool: PlannedPool, agentPoolName: string, context: Context): aks.AgentPool {
  const { scope, cluster, network, child } = context;
  return new aks.AgentPool(
    `pool-${pool.name}`,
    {
      ...agentPool(pool, scope.plan),
      resourceGroupName: scope.place.resourceGroupName,
      resourceName: cluster.name,
      agentPoolName,
      vnetSubnetID: network.nodes.id,
      ...placement(pool, context),
    },
    {
      ...child,
      dependsOn: reservationRights(pool, context),
      aliases: pool.formerNames.map((name) => ({ name: `pool-${name}` })),
      // Counts are the autoscaler's. A pool that was renamed keeps the name that AKS knows it by, and its nodes.
      ignoreChanges: ["count", "agentPoolName"],
    },
  );
}

/**
 * AKS takes 12 lower-case letters and digits: the beginning of the group, and a hash of the pool's name. So a pool keeps
 * its name, and with it its nodes, whatever becomes of the pools around it. Throws an Error should two hashes be the same.
 */
export function poolNames({ pools }: Pick<AzurePlan, "pools">): ReadonlyMap<string, string> {
  const names = new Map(pools.map(({ name, group }) => [name, poolName(name, group)]));
  for (const [name, short] of names) {
    const other = [...names].find(([each, its]) => each !== name && its === short);
    if (other) throw new Error(`Pools ${name} and ${other[0]} both become ${short} on AKS; rename one.`);
  }
  return names;
}

function poolName(name: string, group: string): string {
  const letters = group.toLowerCase().replace(/[^a-z0-9]/g, "");
  return `${`g${letters}`.slice(0, 6)}${shortHash(name)}`;
}

/** What of an agent pool follows from the plan alone. */
function agentPool(
  pool: PlannedPool,
  plan: AzurePlan,
): Omit<aks.AgentPoolArgs, "resourceGroupName" | "resourceName" | "agentPoolName"> {
  return {
    mode: "User",
    // With the type left out, AKS fills in settings that spot pools refuse (Azure/bicep-types-az#2217).
    type: "VirtualMachineScaleSets",
    vmSize: pool.size,
    gpuProfile: { driver: aks.GPUDriver.Install },
    orchestratorVersion: plan.cluster.kubernetesVersion,
    osType: "Linux",
    osSKU: "Ubuntu",
    // As planned: an ephemeral disk must not take the NVMe from the models.
    osDiskType: pool.node.osDisk === "ephemeral" ? "Ephemeral" : "Managed",
    osDiskSizeGB: pool.node.osDiskGiB,
    kubeletDiskType: "OS",
    enableAutoScaling: true,
    minCount: pool.minNodes,
    maxCount: pool.maxNodes,
    count: pool.minNodes,
    scaleDownMode: "Delete",
    nodeLabels: { ...pool.labels, ...(pool.capacity === "spot" ? { [spotMark]: "spot" } : {}) },
    nodeTaints: taintsOf(pool),
    securityProfile: { sshAccess: "Disabled" },
    ...purchase(pool),
    upgradeSettings: upgrades(pool, plan),
    tags: { ...plan.tags },
  };
}

function taintsOf({ taints, capacity }: PlannedPool): string[] {
  const planned = taints.map(({ key, value, effect }) => `${key}=${value}:${effect}`);
  return capacity === "spot" ? [...new Set([...planned, `${spotMark}=spot:NoSchedule`])] : planned;
}

function purchase({ capacity, reservationId }: PlannedPool): Partial<aks.AgentPoolArgs> {
  if (capacity === "spot") {
    // -1: up to the price on demand, so that only a lack of machines takes a node away.
    return { scaleSetPriority: "Spot", scaleSetEvictionPolicy: "Delete", spotMaxPrice: -1 };
  }
  return reservationId === null ? {} : { capacityReservationGroupID: reservationId };
}

/**
 * One node at a time goes away and comes back: nobody has quota for a spare GPU node. Spot pools refuse to be told how
 * many (hashicorp/terraform-provider-azurerm#31129).
 */
function upgrades(pool: PlannedPool, plan: AzurePlan): NonNullable<aks.AgentPoolArgs["upgradeSettings"]> {
  const drains = plan.fleets.filter((fleet) => fleet.pool === pool.group).map((fleet) => fleet.drainSeconds);
  const drainTimeoutInMinutes = Math.ceil(Math.max(0, ...drains) / 60) + drainMarginMinutes;
  return pool.capacity === "spot"
    ? { drainTimeoutInMinutes }
    : { drainTimeoutInMinutes, maxUnavailable: "1", maxSurge: "0" };
}

/** Zones; for nodes that must be close together, a placement group in the first of them. */
function placement(pool: PlannedPool, { scope, child }: Context): Partial<aks.AgentPoolArgs> {
  if (!pool.placementGroup) return { availabilityZones: [...pool.zones] };
  const zones = pool.zones.slice(0, 1);
  const group = new compute.ProximityPlacementGroup(
    `near-${pool.name}`,
    {
      ...scope.place,
      proximityPlacementGroupName: `${scope.plan.prefix}-${pool.name}`,
      proximityPlacementGroupType: "Standard",
      zones,
      intent: { vmSizes: [pool.size] },
      tags: scope.tags,
    },
    {
      ...child,
      aliases: pool.formerNames.map((name) => ({ name: `near-${name}` })),
      ignoreChanges: ["proximityPlacementGroupName"],
    },
  );
  return { availabilityZones: zones, proximityPlacementGroupID: group.id };
}

/** To start nodes in a group of reserved capacity the cluster must be allowed to use it. */
function reservationRights(
  { name, reservationId, capacity }: PlannedPool,
  { scope, cluster, child }: Context,
): pulumi.Resource[] {
  if (reservationId === null || capacity !== "reserved") return [];
  const use = { role: "contributor", on: reservationId, to: cluster.principalId, kind: "ServicePrincipal" } as const;
  return [grant(`reserved-${name}`, use, { scope, child })];
}
