import type * as aks from "@pulumi/azure-native/containerservice/index.js";
import * as pulumi from "@pulumi/pulumi";
import type { Network } from "./network.ts";
import type { AzurePlan } from "./scope.ts";

/*
 * The cluster's properties by concern. Each function answers a part of the cluster's arguments.
 */

type Part<Key extends keyof aks.ManagedClusterArgs> = Required<Pick<aks.ManagedClusterArgs, Key>>;

/** How long a pod may take to go away before its node does: the longest drain, and what its start and end take. */
const drainMarginSeconds = 60;

/** The pool that the cluster starts with: the gateway, add-ons, the system. */
export function systemPool({ cluster, zones, tags }: AzurePlan, network: Network): Part<"agentPoolProfiles"> {
  return {
    agentPoolProfiles: [
      {
        name: "system",
        mode: "System",
        type: "VirtualMachineScaleSets",
        vmSize: cluster.system.size,
        availabilityZones: [...zones],
        enableAutoScaling: true,
        minCount: cluster.system.minNodes,
        maxCount: cluster.system.maxNodes,
        count: cluster.system.minNodes,
        orchestratorVersion: cluster.kubernetesVersion,
        osType: "Linux",
        osSKU: "Ubuntu",
        osDiskType: "Managed",
        vnetSubnetID: network.nodes.id,
        securityProfile: { sshAccess: "Disabled" },
        upgradeSettings: { maxSurge: "1", drainTimeoutInMinutes: 30 },
        tags: { ...tags },
      },
    ],
  };
}

/** People come in with Entra ID and nothing else; nobody has a certificate or a password of the cluster. */
export function access(
  { cluster, network, environment }: AzurePlan,
  { egressAddress }: Network,
): Part<"disableLocalAccounts" | "enableRBAC" | "aadProfile" | "apiServerAccessProfile"> {
  const ranges = network.apiAllowedAddresses;
  return {
    disableLocalAccounts: true,
    enableRBAC: true,
    aadProfile: { managed: true, enableAzureRBAC: true, adminGroupObjectIDs: [...cluster.admins] },
    apiServerAccessProfile: network.privateCluster
      ? { enablePrivateCluster: true, privateDNSZone: "system", disableRunCommand: environment === "prod" }
      : {
          enablePrivateCluster: false,
          disableRunCommand: environment === "prod",
          // Nodes come from our own address: once others are shut out, it must be let in.
          ...(ranges.length === 0 ? {} : { authorizedIPRanges: [...ranges, pulumi.interpolate`${egressAddress}/32`] }),
        },
  };
}

/** Pods prove who they are with their service account's token. */
export function workloadIdentity(): Part<"oidcIssuerProfile"> & Pick<aks.ManagedClusterArgs, "securityProfile"> {
  return { oidcIssuerProfile: { enabled: true }, securityProfile: { workloadIdentity: { enabled: true } } };
}

/** Pods have addresses of the carriers' range (RFC 6598), so that they meet no network of yours: 1024 nodes of 256. */
export function podNetwork(): Part<"networkProfile"> {
  return {
    networkProfile: {
      networkPlugin: "azure",
      networkPluginMode: "overlay",
      networkDataplane: "cilium",
      networkPolicy: "cilium",
      podCidr: "100.64.0.0/14",
      serviceCidr: "100.68.0.0/16",
      dnsServiceIP: "100.68.0.10",
      loadBalancerSku: "standard",
      outboundType: "userAssignedNATGateway",
    },
  };
}

/** KEDA as part of the cluster where the plan says so, and the autoscaler of nodes: one profile for all pools. */
export function scaling(plan: AzurePlan): Part<"workloadAutoScalerProfile" | "autoScalerProfile"> {
  const longestDrain = Math.max(plan.gateway.config.drainSeconds, ...plan.fleets.map((fleet) => fleet.drainSeconds));
  return {
    workloadAutoScalerProfile: {
      keda: { enabled: plan.addOns.some(({ name, how }) => name === "keda" && how.kind === "cluster") },
    },
    autoScalerProfile: {
      // Pools of a group are tried in the stack's order: kube-system/cluster-autoscaler-priority-expander has it.
      expander: "priority",
      scanInterval: "10",
      scaleDownUnneededTime: "10m",
      scaleDownDelayAfterAdd: "10m",
      maxGracefulTerminationSec: String(longestDrain + drainMarginSeconds),
      // GPU nodes hold the cache of models, which is not worth a node.
      skipNodesWithLocalStorage: "false",
      skipNodesWithSystemPods: "true",
      ignoreDaemonsetsUtilization: true,
    },
  };
}

/** Upgrades, disks, metrics. No image cleaner: it would remove the large images that make a node start fast. */
export function upkeep(
  plan: AzurePlan,
): Part<"sku" | "autoUpgradeProfile" | "storageProfile" | "azureMonitorProfile" | "metricsProfile"> {
  const isProduction = plan.environment === "prod";
  return {
    sku: { name: "Base", tier: isProduction ? "Standard" : "Free" },
    autoUpgradeProfile: { upgradeChannel: "patch", nodeOSUpgradeChannel: "NodeImage" },
    storageProfile: {
      diskCSIDriver: { enabled: true },
      fileCSIDriver: { enabled: false },
      blobCSIDriver: { enabled: false },
      snapshotController: { enabled: false },
    },
    azureMonitorProfile: { metrics: { enabled: plan.observability.mode === "managed" } },
    // Cost by namespace in Azure's cost analysis; the free tier has none.
    metricsProfile: { costAnalysis: { enabled: isProduction } },
  };
}
