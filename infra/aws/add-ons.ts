import * as eks from "@pulumi/aws/eks/index.js";
import { getAddonVersionOutput } from "@pulumi/aws/eks/getAddonVersion.js";
import type * as pulumi from "@pulumi/pulumi";
import type { Cluster } from "./cluster.ts";
import { roleFor } from "./policies.ts";
import { part, type Context, type Scope } from "./scope.ts";

/** A part of Kubernetes that EKS installs and patches. */
interface AddOn {
  readonly name: string;
  readonly configuration?: Readonly<Record<string, unknown>>;
  /** The service account that uses AWS, and AWS's policy for it. */
  readonly identity?: { readonly serviceAccount: string; readonly policy: string };
}

/** Without these a node does not become ready, so they come before any node. */
const beforeNodes: readonly AddOn[] = [
  {
    name: "vpc-cni",
    // Network policies are off unless they are switched on, and nobody would be told.
    configuration: { enableNetworkPolicy: "true" },
    identity: { serviceAccount: "aws-node", policy: "AmazonEKS_CNI_Policy" },
  },
  { name: "kube-proxy" },
  { name: "eks-pod-identity-agent" },
];

/** These run on nodes, and are not installed before there are some. */
function onNodes({ tags }: Scope): readonly AddOn[] {
  return [
    { name: "coredns" },
    { name: "metrics-server" },
    {
      name: "aws-ebs-csi-driver",
      configuration: { controller: { extraVolumeTags: { ...tags } } },
      identity: { serviceAccount: "ebs-csi-controller-sa", policy: "service-role/AmazonEBSCSIDriverPolicy" },
    },
  ];
}

/** Network, proxy and identities of pods. */
export function makeNodeAddOns(scope: Scope, cluster: Cluster): readonly pulumi.Resource[] {
  return part(scope, "node-add-ons", (child) => beforeNodes.map((each) => install(each, cluster, { scope, child })));
}

/** Names, metrics and disks. */
export function makeAddOns(
  scope: Scope,
  { cluster, nodes }: { readonly cluster: Cluster; readonly nodes: pulumi.Resource },
): readonly pulumi.Resource[] {
  return part(scope, "add-ons", (child) =>
    onNodes(scope).map((each) => install(each, cluster, { scope, child, after: nodes })),
  );
}

/** The version is the one that EKS recommends for the cluster's Kubernetes: an upgrade of the one brings the other. */
function install(
  { name, configuration, identity }: AddOn,
  cluster: Cluster,
  { scope, child, after }: Context & { readonly after?: pulumi.Resource },
): pulumi.Resource {
  const { kubernetesVersion } = scope.plan.cluster;
  const recommended = getAddonVersionOutput({ addonName: name, kubernetesVersion }, { provider: scope.provider });
  const made =
    identity === undefined ? null : roleFor(name, { for: "pods", managed: [identity.policy] }, { scope, child });
  return new eks.Addon(
    name,
    {
      clusterName: cluster.name,
      addonName: name,
      addonVersion: recommended.version,
      resolveConflictsOnCreate: "OVERWRITE",
      resolveConflictsOnUpdate: "OVERWRITE",
      ...(configuration === undefined ? {} : { configurationValues: JSON.stringify(configuration) }),
      ...(identity === undefined || made === null
        ? {}
        : { podIdentityAssociations: [{ serviceAccount: identity.serviceAccount, roleArn: made.role.arn }] }),
      tags: scope.tags,
    },
    { ...child, dependsOn: [...(made?.ready ?? []), ...(after === undefined ? [] : [after])] },
  );
}
