import * as eks from "@pulumi/aws/eks/index.js";
import * as ec2 from "@pulumi/aws/ec2/index.js";
import type * as kms from "@pulumi/aws/kms/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { administrators } from "./access.ts";
import { kubeconfigOf } from "./kubeconfig.ts";
import { logGroup } from "./logs.ts";
import type { Network } from "./network.ts";
import { roleFor, type MadeRole } from "./policies.ts";
import { part, type Context, type Scope } from "./scope.ts";
import { letIn } from "./security-groups.ts";

/** The control plane and what others need of it. */
export interface Cluster {
  readonly name: pulumi.Output<string>;
  /** Of the control plane and of every node. */
  readonly securityGroupId: pulumi.Output<string>;
  /** A secret. */
  readonly kubeconfig: pulumi.Output<string>;
  /** The cluster, and the rights without which nobody could talk to it. */
  readonly ready: readonly pulumi.Resource[];
}

/** Who did what, and why a pod is not scheduled: all that EKS offers. */
const logTypes = ["api", "audit", "authenticator", "controllerManager", "scheduler"];

/** EKS, without a node: only identities of IAM come in, by access entries. */
export function makeCluster(scope: Scope, { network, key }: { network: Network; key: kms.Key }): Cluster {
  return part(scope, "cluster", (child) => {
    const context = { scope, child };
    const { role, ready } = roleFor("cluster", { for: "eks", managed: ["AmazonEKSClusterPolicy"] }, context);
    const logs = logGroup("cluster", { path: `/aws/eks/${scope.plan.cluster.name}/cluster`, key }, context);
    const cluster = new eks.Cluster("cluster", clusterArgs(scope, { network, key, role }), {
      ...child,
      ...scope.stateful,
      dependsOn: [...ready, logs],
    });
    const securityGroupId = cluster.vpcConfig.apply(({ clusterSecurityGroupId }) => clusterSecurityGroupId);
    return {
      name: cluster.name,
      securityGroupId,
      kubeconfig: kubeconfigOf(cluster, scope),
      ready: [cluster, ...administrators(cluster.name, context), ...ways(securityGroupId, context)],
    };
  });
}

function clusterArgs(
  { plan, tags }: Scope,
  { network, key, role }: { readonly network: Network; readonly key: kms.Key; readonly role: MadeRole["role"] },
): eks.ClusterArgs {
  const { cluster } = plan;
  return {
    name: cluster.name,
    version: cluster.kubernetesVersion,
    roleArn: role.arn,
    accessConfig: { authenticationMode: "API", bootstrapClusterCreatorAdminPermissions: false },
    vpcConfig: { subnetIds: [...network.subnets.values()].map(({ id }) => id), ...apiAddresses(plan.network) },
    encryptionConfig: { provider: { keyArn: key.arn }, resources: ["secrets"] },
    enabledClusterLogTypes: logTypes,
    kubernetesNetworkConfig: { ipFamily: "ipv4", serviceIpv4Cidr: "172.20.0.0/16" },
    // Add-ons are ours: the ones that EKS would install by itself nobody could configure.
    bootstrapSelfManagedAddons: false,
    // GPUs are filled before the next node is touched, so that empty nodes can go.
    kubeSchedulerConfig: {
      nodeResourcesFit: {
        scoringStrategy: { type: "MostAllocated", resources: [{ name: "nvidia.com/gpu", weight: 100 }] },
      },
    },
    // Extended support costs six times as much (0.60 USD an hour): an old version is upgraded in its place.
    upgradePolicy: { supportType: "STANDARD" },
    deletionProtection: plan.environment === "prod",
    tags: { ...tags },
  };
}

/** Nodes always use the private address; a public one is there for the named ranges alone. */
function apiAddresses({ privateCluster, apiAllowedAddresses }: Scope["plan"]["network"]): {
  readonly endpointPrivateAccess: true;
  readonly endpointPublicAccess: boolean;
  readonly publicAccessCidrs?: string[];
} {
  return privateCluster
    ? { endpointPrivateAccess: true, endpointPublicAccess: false }
    : { endpointPrivateAccess: true, endpointPublicAccess: true, publicAccessCidrs: [...apiAllowedAddresses] };
}

/** Karpenter finds the nodes' security group by its tag; whoever is inside the network reaches a private API. */
function ways(group: pulumi.Output<string>, context: Context): pulumi.Resource[] {
  const { cluster, network } = context.scope.plan;
  const discovery = new ec2.Tag(
    "nodes-discovery",
    { resourceId: group, key: "karpenter.sh/discovery", value: cluster.name },
    context.child,
  );
  if (!network.privateCluster) return [discovery];
  return [discovery, letIn("api-from-inside", { group, port: 443, from: { cidrIpv4: network.cidr } }, context)];
}
