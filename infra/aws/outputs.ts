import * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import type { Observability } from "./observability.ts";
import type { Scope } from "./scope.ts";

/** Annotations of the gateway's Service, from which EKS itself makes a Network Load Balancer. */
export function serviceAnnotations({ plan, tags }: Scope): CloudOutputs["serviceAnnotations"] {
  const prefix = "service.beta.kubernetes.io/aws-load-balancer";
  const pairs = Object.entries(tags).filter(([key, value]) => !/[,=]/.test(key + value));
  return {
    [`${prefix}-type`]: "nlb",
    ...(plan.gateway.config.internal ? { [`${prefix}-internal`]: "true" } : {}),
    // Two checks that fail, in 20 s, and a node has no gateway any more: as long as one waits before it stops.
    [`${prefix}-healthcheck-interval`]: "10",
    [`${prefix}-healthcheck-healthy-threshold`]: "2",
    [`${prefix}-healthcheck-unhealthy-threshold`]: "2",
    // A zone without a gateway pod passes its connections on to the others.
    [`${prefix}-cross-zone-load-balancing-enabled`]: "true",
    [`${prefix}-additional-resource-tags`]: pairs.map(([key, value]) => `${key}=${value}`).join(","),
  };
}

/** For people. */
export function linksOf({ plan: { region, cluster, cache } }: Scope, made: Observability): CloudOutputs["links"] {
  const console = `https://${region}.console.aws.amazon.com`;
  return {
    cluster: pulumi.output(`${console}/eks/clusters/${cluster.name}?region=${region}`),
    models: pulumi.output(`https://s3.console.aws.amazon.com/s3/buckets/${cache.bucket}?region=${region}`),
    ...(made.workspaceArn === null
      ? {}
      : { metrics: pulumi.output(`${console}/prometheus/home?region=${region}#/workspaces`) }),
  };
}
