import * as ec2 from "@pulumi/aws/ec2/index.js";
import * as vpc from "@pulumi/aws/vpc/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { PlannedPool } from "../plan/plan.ts";
import type { Network } from "./network.ts";
import { named, type Context } from "./scope.ts";

/** Sizes whose first network card has no EFA: what it has comes beside it (EC2 User Guide, EFA and network cards). */
const plainFirstCard = new Set(["p6-b300.48xlarge"]);

/**
 * EFA passes between nodes of one security group alone, and only where that group names itself both ways: a rule that lets
 * everything out does not count. It has no cluster tag, by which EKS tells the nodes' own group from others.
 */
export function efaGroup({ vpcId }: Network, { scope, child }: Context): ec2.SecurityGroup {
  const group = new ec2.SecurityGroup(
    "efa",
    { vpcId, description: "EFA between nodes of a replica", tags: named(scope, "efa") },
    child,
  );
  const itself = {
    securityGroupId: group.id,
    referencedSecurityGroupId: group.id,
    ipProtocol: "-1",
    tags: scope.tags,
  };
  new vpc.SecurityGroupIngressRule("efa-in", itself, child);
  new vpc.SecurityGroupEgressRule("efa-out", itself, child);
  return group;
}

/**
 * One interface on each network card. The first carries the node's addresses; the others EFA alone, so that they take none
 * of the subnet's. None for sizes without EFA.
 */
export function interfacesOf(
  { size, node }: PlannedPool,
  securityGroups: readonly pulumi.Output<string>[],
): NonNullable<pulumi.Unwrap<ec2.LaunchTemplateArgs["networkInterfaces"]>> {
  if (node.efaInterfaces === 0) return [];
  const isPlain = plainFirstCard.has(size);
  const cards = node.efaInterfaces + (isPlain ? 1 : 0);
  return Array.from({ length: cards }, (_, card) => ({
    networkCardIndex: card,
    // A card that only has EFA has room for one interface.
    deviceIndex: card === 0 || isPlain ? 0 : 1,
    interfaceType: card > 0 ? "efa-only" : isPlain ? "interface" : "efa",
    securityGroups: [...securityGroups],
    deleteOnTermination: "true",
  }));
}
