import type * as ec2 from "@pulumi/aws/ec2/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { PlannedPool } from "../plan/plan.ts";

/** Sizes whose first network card has no EFA: what they have comes beside it (EC2 User Guide, EFA and network cards). */
const plainFirstCard = new Set(["p6-b300.48xlarge"]);

/** The part of a launch template that says which network interfaces a node has. */
type Interfaces = Pick<ec2.LaunchTemplateArgs, "networkInterfaces">;

/**
 * One interface on each network card. The first carries the node's addresses; the others EFA alone, so that they take none
 * of the subnet's. Nothing for sizes without EFA: they have the interface that EKS gives them.
 */
export function interfacesOf(
  { size, node }: PlannedPool,
  securityGroups: readonly pulumi.Output<string>[],
): Interfaces {
  if (node.efaInterfaces === 0) return {};
  const isPlain = plainFirstCard.has(size);
  const cards = node.efaInterfaces + (isPlain ? 1 : 0);
  const networkInterfaces = Array.from({ length: cards }, (_, card) => ({
    networkCardIndex: card,
    // A card that has EFA alone has room for one interface.
    deviceIndex: card === 0 || isPlain ? 0 : 1,
    interfaceType: card > 0 ? "efa-only" : isPlain ? "interface" : "efa",
    securityGroups: [...securityGroups],
    deleteOnTermination: "true",
  }));
  return { networkInterfaces };
}
