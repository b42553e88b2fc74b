import * as ec2 from "@pulumi/aws/ec2/index.js";
import * as vpc from "@pulumi/aws/vpc/index.js";
import type { Cluster } from "./cluster.ts";
import type { Network } from "./network.ts";
import { named, type Context } from "./scope.ts";

/** What managed stores are made with. */
export interface StoreContext extends Context {
  readonly network: Network;
  readonly cluster: Cluster;
}

/** The way to a managed store: from the cluster's nodes and pods, to one port. */
export function storeGroup(
  name: string,
  port: number,
  { scope, child, network, cluster }: StoreContext,
): ec2.SecurityGroup {
  const group = new ec2.SecurityGroup(
    name,
    { vpcId: network.vpcId, description: `Clients of ${name}`, tags: named(scope, name) },
    child,
  );
  new vpc.SecurityGroupIngressRule(
    `${name}-from-cluster`,
    {
      securityGroupId: group.id,
      referencedSecurityGroupId: cluster.securityGroupId,
      ipProtocol: "tcp",
      fromPort: port,
      toPort: port,
      tags: scope.tags,
    },
    child,
  );
  return group;
}
