import type * as eks from "@pulumi/aws/eks/index.js";
import * as pulumi from "@pulumi/pulumi";
import type { Scope } from "./scope.ts";

/**
 * A kubeconfig that logs in through the AWS CLI, as whoever deploys (with the profile that Pulumi was told to use). There is
 * no password in it; it is a secret all the same, as it tells where the cluster is.
 */
export function kubeconfigOf(cluster: eks.Cluster, { plan, profile }: Scope): pulumi.Output<string> {
  const { name } = plan.cluster;
  const args = ["eks", "get-token", "--cluster-name", name, "--region", plan.region, "--output", "json"];
  const exec = {
    apiVersion: "client.authentication.k8s.io/v1beta1",
    command: "aws",
    args,
    interactiveMode: "Never",
    ...(profile === null ? {} : { env: [{ name: "AWS_PROFILE", value: profile }] }),
  };
  const certificate = cluster.certificateAuthority.apply(({ data }) => data);
  return pulumi.secret(
    pulumi.jsonStringify({
      apiVersion: "v1",
      kind: "Config",
      clusters: [{ name, cluster: { server: cluster.endpoint, "certificate-authority-data": certificate } }],
      users: [{ name, user: { exec } }],
      contexts: [{ name, context: { cluster: name, user: name } }],
      "current-context": name,
    }),
  );
}
