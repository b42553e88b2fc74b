import * as eks from "@pulumi/aws/eks/index.js";
import { getSessionContextOutput } from "@pulumi/aws/iam/getSessionContext.js";
import type * as pulumi from "@pulumi/pulumi";
import { shortHash } from "../lib/names.ts";
import type { Context } from "./scope.ts";

const adminPolicy = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy";

/**
 * The plan's admins; where it names none, whoever deploys: somebody must be able to install the gateway. With admins named,
 * the role that deploys has to be one of them.
 */
export function administrators(clusterName: pulumi.Output<string>, context: Context): pulumi.Resource[] {
  const { plan, provider, callerArn } = context.scope;
  if (plan.cluster.admins.length > 0) {
    return plan.cluster.admins.map((arn) => administrator(`admin-${shortHash(arn)}`, { clusterName, arn }, context));
  }
  // EKS knows roles, and STS says the session of one.
  const { issuerArn } = getSessionContextOutput({ arn: callerArn }, { provider });
  return [administrator("deployer", { clusterName, arn: issuerArn }, context)];
}

function administrator(
  name: string,
  { clusterName, arn }: { readonly clusterName: pulumi.Output<string>; readonly arn: pulumi.Input<string> },
  { scope, child }: Context,
): pulumi.Resource {
  const entry = new eks.AccessEntry(name, { clusterName, principalArn: arn, tags: scope.tags }, child);
  return new eks.AccessPolicyAssociation(
    name,
    { clusterName, principalArn: entry.principalArn, policyArn: adminPolicy, accessScope: { type: "cluster" } },
    child,
  );
}
