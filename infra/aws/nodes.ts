import * as ec2 from "@pulumi/aws/ec2/index.js";
import * as eks from "@pulumi/aws/eks/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { Cluster } from "./cluster.ts";
import { subnetsIn, type Network } from "./network.ts";
import { roleFor, type MadeRole } from "./policies.ts";
import { named, part, type Context, type Scope } from "./scope.ts";

/** What every node may do: join the cluster, and pull images. What pods may is their own identity's. */
export const nodePolicies = ["AmazonEKSWorkerNodePolicy", "AmazonEC2ContainerRegistryPullOnly"];

/** Of the system nodes: images and logs. */
const systemDiskGiB = 80;

/** What nodes of a group are made with. */
export interface NodeContext extends Context {
  readonly cluster: Cluster;
  readonly network: Network;
  readonly role: MadeRole;
}

/** Nodes for the gateway and add-ons, and the role that nodes of groups have. */
export interface Nodes {
  readonly role: MadeRole;
  readonly system: eks.NodeGroup;
}

/** The system's node group. Its nodes start once the network, the identities and the ways out are there. */
export function makeNodes(
  scope: Scope,
  {
    cluster,
    network,
    after,
  }: Pick<NodeContext, "cluster" | "network"> & { readonly after: readonly pulumi.Resource[] },
): Nodes {
  return part(scope, "nodes", (child) => {
    const role = roleFor("node", { for: "ec2", managed: nodePolicies }, { scope, child });
    const { prefix, cluster: planned, zones } = scope.plan;
    const { system, kubernetesVersion } = planned;
    const template = new ec2.LaunchTemplate(
      "system",
      { ...templateOf("system", systemDiskGiB, scope), name: `${prefix}-system`, instanceType: system.size },
      child,
    );
    const group = new eks.NodeGroup(
      "system",
      {
        clusterName: cluster.name,
        nodeGroupName: "system",
        nodeRoleArn: role.role.arn,
        subnetIds: subnetsIn(network, zones),
        version: kubernetesVersion,
        amiType: "AL2023_x86_64_STANDARD",
        capacityType: "ON_DEMAND",
        launchTemplate: versionOf(template),
        scalingConfig: { minSize: system.minNodes, maxSize: system.maxNodes, desiredSize: system.minNodes },
        updateConfig: { maxUnavailable: 1 },
        nodeRepairConfig: { enabled: true },
        tags: scope.tags,
      },
      {
        ...child,
        dependsOn: [...role.ready, ...network.ready, ...cluster.ready, ...after],
        // The autoscaler's.
        ignoreChanges: ["scalingConfig.desiredSize"],
      },
    );
    return { role, system: group };
  });
}

/** The template's newest version: a change of it replaces nodes one after the other. */
export function versionOf(template: ec2.LaunchTemplate): { id: pulumi.Output<string>; version: pulumi.Output<string> } {
  return { id: template.id, version: template.latestVersion.apply(String) };
}

/**
 * What all nodes have: an encrypted disk, and metadata that no pod can reach (IMDSv2, one hop). Tags of a template are not
 * those of its machines, so they are there twice. `shownAs`: in consoles; like any tag it changes machines only by replacing
 * them.
 */
export function templateOf(shownAs: string, diskGiB: number, scope: Scope): ec2.LaunchTemplateArgs {
  const tags = named(scope, shownAs);
  return {
    updateDefaultVersion: true,
    metadataOptions: {
      httpEndpoint: "enabled",
      httpTokens: "required",
      httpPutResponseHopLimit: 1,
      instanceMetadataTags: "disabled",
    },
    blockDeviceMappings: [
      {
        deviceName: "/dev/xvda",
        ebs: { volumeSize: diskGiB, volumeType: "gp3", encrypted: "true", deleteOnTermination: "true" },
      },
    ],
    tagSpecifications: ["instance", "volume", "network-interface"].map((resourceType) => ({ resourceType, tags })),
    tags,
  };
}
