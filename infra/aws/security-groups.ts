import * as ec2 from "@pulumi/aws/ec2/index.js";
import * as vpc from "@pulumi/aws/vpc/index.js";
import type * as pulumi from "@pulumi/pulumi";
import { named, type Context } from "./scope.ts";

/** Who may come in: a range of addresses, or members of a group. */
type From = { readonly cidrIpv4: string } | { readonly referencedSecurityGroupId: pulumi.Input<string> };

/** A security group, and all that must be there before it lets anybody in. */
export interface MadeGroup {
  readonly id: pulumi.Output<string>;
  readonly ready: readonly pulumi.Resource[];
}

/** A security group that lets nobody in, and nobody out. */
export function emptyGroup(
  name: string,
  { vpcId, description }: { readonly vpcId: pulumi.Input<string>; readonly description: string },
  { scope, child }: Context,
): ec2.SecurityGroup {
  return new ec2.SecurityGroup(name, { vpcId, description, tags: named(scope, name) }, child);
}

/** A security group of something that listens on one TCP port. */
export function listener(
  name: string,
  { port, from, ...group }: Parameters<typeof emptyGroup>[1] & { readonly port: number; readonly from: From },
  context: Context,
): MadeGroup {
  const made = emptyGroup(name, group, context);
  return { id: made.id, ready: [made, letIn(`${name}-in`, { group: made.id, port, from }, context)] };
}

/** Lets somebody in to one TCP port. */
export function letIn(
  name: string,
  { group, port, from }: { readonly group: pulumi.Input<string>; readonly port: number; readonly from: From },
  { scope, child }: Context,
): vpc.SecurityGroupIngressRule {
  return new vpc.SecurityGroupIngressRule(
    name,
    { securityGroupId: group, ...from, ipProtocol: "tcp", fromPort: port, toPort: port, tags: scope.tags },
    child,
  );
}

/**
 * A security group whose members reach each other with everything, both ways. EFA passes within such a group alone, and a
 * rule that lets out to everywhere does not count. It has no cluster tag, by which EKS tells the nodes' own group.
 */
export function mutualGroup(name: string, group: Parameters<typeof emptyGroup>[1], context: Context): MadeGroup {
  const { scope, child } = context;
  const made = emptyGroup(name, group, context);
  const itself = {
    securityGroupId: made.id,
    referencedSecurityGroupId: made.id,
    ipProtocol: "-1",
    tags: scope.tags,
  };
  return {
    id: made.id,
    ready: [
      made,
      new vpc.SecurityGroupIngressRule(`${name}-in`, itself, child),
      new vpc.SecurityGroupEgressRule(`${name}-out`, itself, child),
    ],
  };
}
