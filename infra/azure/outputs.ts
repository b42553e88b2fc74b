import * as pulumi from "@pulumi/pulumi";
import type { CloudOutputs } from "../cloud.ts";
import { shortHash } from "../lib/names.ts";
import type { Observability } from "./observability.ts";
import type { Scope } from "./scope.ts";

/** Minutes without a byte after which the load balancer forgets a connection: the longest that it offers. */
const idleMinutes = "100";

/** First part of the endpoint's name at Azure, `<label>.<region>.cloudapp.azure.com`: unique in its region. */
export function dnsLabel({ plan }: Scope): string {
  return `${plan.prefix}-${shortHash(plan.cache.account)}`;
}

/** Annotations of the gateway's Service, which make its load balancer. */
export function serviceAnnotations(scope: Scope): CloudOutputs["serviceAnnotations"] {
  const prefix = "service.beta.kubernetes.io/azure";
  const idle = { [`${prefix}-load-balancer-tcp-idle-timeout`]: idleMinutes };
  if (scope.plan.gateway.config.internal) return { [`${prefix}-load-balancer-internal`]: "true", ...idle };
  const tags = Object.entries(scope.tags).filter(([key, value]) => !/[,=]/.test(key + value));
  return {
    [`${prefix}-dns-label-name`]: dnsLabel(scope),
    [`${prefix}-pip-tags`]: tags.map(([key, value]) => `${key}=${value}`).join(","),
    ...idle,
  };
}

/** For people. */
export function linksOf(scope: Scope, { grafana }: Observability): CloudOutputs["links"] {
  const { gateway, region } = scope.plan;
  return {
    portal: pulumi.interpolate`https://portal.azure.com/#@${scope.tenantId}/resource${scope.resourceGroupId}`,
    ...(gateway.config.internal
      ? {}
      : { endpointName: pulumi.output(`${dnsLabel(scope)}.${region}.cloudapp.azure.com`) }),
    ...(grafana === null ? {} : { grafana }),
  };
}
