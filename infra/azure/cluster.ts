import * as aks from "@pulumi/azure-native/containerservice/index.js";
import * as managedidentity from "@pulumi/azure-native/managedidentity/index.js";
import * as pulumi from "@pulumi/pulumi";
import { concern, type Child } from "../lib/concern.ts";
import { limitedName } from "../lib/names.ts";
import { access, podNetwork, scaling, systemPool, upkeep, workloadIdentity } from "./cluster-profiles.ts";
import type { Network } from "./network.ts";
import { privateEndpoint, type LinkContext } from "./private-link.ts";
import { grant } from "./roles.ts";
import type { AzurePlan, Scope } from "./scope.ts";

/** The cluster and what others need of it. */
export interface Cluster {
  readonly id: pulumi.Output<string>;
  readonly name: pulumi.Output<string>;
  /** Issuer of service accounts' tokens. */
  readonly issuer: pulumi.Output<string>;
  /** A secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** The identity that makes nodes. */
  readonly principalId: pulumi.Output<string>;
  /** The cluster, and the rights without which no pod would start. */
  readonly ready: readonly pulumi.Resource[];
}

/** Group of the cluster's own machines, disks and load balancers. */
export function nodeGroupOf({ prefix }: AzurePlan): string {
  return `${prefix}-nodes`;
}

/** AKS with one pool for the system. GPU pools are resources of their own. */
export function makeCluster(scope: Scope, network: Network): Cluster {
  const { plan } = scope;
  return concern("azure", "cluster", (child) => {
    const context = { scope, network, child };
    const own = identity("cluster", context);
    const kubelet = identity("kubelet", context);
    const cluster = new aks.ManagedCluster(
      "cluster",
      {
        ...scope.place,
        resourceName: plan.cluster.name,
        dnsPrefix: limitedName(plan.cluster.name, 54),
        nodeResourceGroup: nodeGroupOf(plan),
        kubernetesVersion: plan.cluster.kubernetesVersion,
        identity: { type: "UserAssigned", userAssignedIdentities: [own.id] },
        identityProfile: {
          kubeletidentity: { resourceId: kubelet.id, clientId: kubelet.clientId, objectId: kubelet.principalId },
        },
        ...systemPool(plan, network),
        ...access(plan, network),
        ...workloadIdentity(),
        ...podNetwork(),
        ...scaling(plan),
        ...upkeep(plan),
        tags: scope.tags,
      },
      {
        ...child,
        ...scope.stateful,
        dependsOn: ownRights(own, kubelet, context),
        // Read back, this list has the GPU pools too, and its counts are the autoscaler's.
        ignoreChanges: ["agentPoolProfiles"],
      },
    );
    return {
      id: cluster.id,
      name: cluster.name,
      issuer: cluster.oidcIssuerProfile.apply((profile) => profile?.issuerURL ?? ""),
      kubeconfig: kubeconfigOf(cluster, context),
      principalId: own.principalId,
      ready: [
        cluster,
        ...pullRights(kubelet, context),
        ...deployerRights(cluster, context),
        ...weekends(cluster, context),
      ],
    };
  });
}

interface Context extends LinkContext {
  readonly child: Child;
}

function identity(name: string, { scope, child }: Context): managedidentity.UserAssignedIdentity {
  return new managedidentity.UserAssignedIdentity(
    `${name}-identity`,
    { ...scope.place, resourceName: `${scope.plan.prefix}-${name}`, tags: scope.tags },
    child,
  );
}

/** The cluster puts nodes into their subnet and gives them the kubelet's identity. */
function ownRights(
  own: managedidentity.UserAssignedIdentity,
  kubelet: managedidentity.UserAssignedIdentity,
  context: Context,
): pulumi.Resource[] {
  const to = { to: own.principalId, kind: "ServicePrincipal" } as const;
  return [
    grant("cluster-joins-nodes", { role: "networkContributor", on: context.network.nodes.id, ...to }, context),
    grant("cluster-uses-kubelet", { role: "identityOperator", on: kubelet.id, ...to }, context),
  ];
}

/** Nodes pull from a private registry with their identity: no password is anywhere. */
function pullRights(kubelet: managedidentity.UserAssignedIdentity, context: Context): readonly pulumi.Resource[] {
  const { cluster, network } = context.scope.plan;
  if (cluster.registry === null) return [];
  const pulling = { role: "acrPull", on: cluster.registry, to: kubelet.principalId, kind: "ServicePrincipal" } as const;
  const target = { id: cluster.registry, group: "registry", zoneName: "privatelink.azurecr.io" };
  return [
    grant("nodes-pull", pulling, context),
    ...(network.endpoints === "full" ? privateEndpoint("registry", target, context) : []),
  ];
}

/** Where no group is named, whoever deploys is the admin: somebody must be able to install the gateway. */
function deployerRights(cluster: aks.ManagedCluster, context: Context): readonly pulumi.Resource[] {
  const { plan, deployerId } = context.scope;
  if (plan.cluster.admins.length > 0) return [];
  const admin = { role: "aksClusterAdmin", on: cluster.id, to: deployerId, kind: "unknown" } as const;
  return [grant("deployer-is-admin", admin, context)];
}

/** Automatic upgrades drain nodes: on Sundays between 2 and 6, UTC. */
function weekends(cluster: aks.ManagedCluster, { scope, child }: Context): readonly pulumi.Resource[] {
  return ["aksManagedAutoUpgradeSchedule", "aksManagedNodeOSUpgradeSchedule"].map(
    (configName) =>
      new aks.MaintenanceConfiguration(
        configName,
        {
          resourceGroupName: scope.place.resourceGroupName,
          resourceName: cluster.name,
          configName,
          maintenanceWindow: {
            schedule: { weekly: { dayOfWeek: "Sunday", intervalWeeks: 1 } },
            startTime: "02:00",
            durationHours: 4,
          },
        },
        child,
      ),
  );
}

/** The cluster's own kubeconfig, with a login that works where nobody is there to type a code. */
function kubeconfigOf(cluster: aks.ManagedCluster, { scope, child }: Context): pulumi.Output<string> {
  const credentials = aks.listManagedClusterUserCredentialsOutput(
    { resourceGroupName: scope.place.resourceGroupName, resourceName: cluster.name, format: "exec" },
    child,
  );
  return pulumi.secret(credentials.kubeconfigs.apply(([first]) => unattended(first?.value ?? "")));
}

/**
 * A kubeconfig from Azure (base64) that logs in through kubelogin as whoever the Azure CLI is logged in as, where Azure
 * wrote a login with a device code. `AAD_LOGIN_METHOD` in the environment says another way.
 */
export function unattended(kubeconfig: string): string {
  return Buffer.from(kubeconfig, "base64")
    .toString("utf8")
    .replace(/^(\s*- )devicecode[ \t]*$/m, "$1azurecli");
}
