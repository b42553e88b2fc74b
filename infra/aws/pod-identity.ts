import * as eks from "@pulumi/aws/eks/index.js";
import type * as pulumi from "@pulumi/pulumi";
import type { Cluster } from "./cluster.ts";
import { roleFor, type Statement } from "./policies.ts";
import type { Context } from "./scope.ts";

/** A service account. */
export interface Account {
  readonly name: string;
  readonly namespace: string;
}

/** Lets the pods of a service account, and nobody else, do what the statements say. There is no key to keep. */
export function podIdentity(
  { name, namespace }: Account,
  statements: readonly Statement[],
  { scope, child, cluster }: Context & { readonly cluster: Cluster },
): readonly pulumi.Resource[] {
  const { role, ready } = roleFor(name, { for: "pods", statements }, { scope, child });
  const association = new eks.PodIdentityAssociation(
    name,
    { clusterName: cluster.name, namespace, serviceAccount: name, roleArn: role.arn, tags: scope.tags },
    child,
  );
  return [...ready, association];
}
