import * as elasticache from "@pulumi/aws/elasticache/index.js";
import type * as kms from "@pulumi/aws/kms/index.js";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import { part, type Scope } from "./scope.ts";
import { storeGroup, type StoreContext } from "./stores.ts";

const port = 6379;

/** Valkey on ElastiCache, with TLS and a password. Its URL is a secret. Null: in the cluster. */
export function makeRedis(
  scope: Scope,
  { network, cluster, key }: Pick<StoreContext, "network" | "cluster"> & { readonly key: kms.Key },
): { readonly url: pulumi.Output<string>; readonly ready: readonly pulumi.Resource[] } | null {
  const { redis, prefix } = scope.plan;
  if (redis.mode === "in-cluster") return null;
  return part(scope, "redis", (child) => {
    const context = { scope, child, network, cluster };
    const password = new random.RandomPassword(
      "redis-password",
      { length: 64, special: false },
      { parent: child.parent },
    );
    const subnets = new elasticache.SubnetGroup(
      "redis",
      { name: `${prefix}-redis`, subnetIds: [...network.subnets.values()].map(({ id }) => id), tags: scope.tags },
      child,
    );
    const group = new elasticache.ReplicationGroup(
      "redis",
      {
        replicationGroupId: `${prefix}-redis`,
        description: "Limits, sessions and demand of the gateway",
        engine: "valkey",
        engineVersion: redis.version,
        nodeType: redis.sku,
        numCacheClusters: redis.highAvailability ? 2 : 1,
        automaticFailoverEnabled: redis.highAvailability,
        multiAzEnabled: redis.highAvailability,
        port,
        subnetGroupName: subnets.name,
        securityGroupIds: [storeGroup("redis", port, context).id],
        transitEncryptionEnabled: true,
        authToken: pulumi.secret(password.result),
        atRestEncryptionEnabled: true,
        kmsKeyId: key.arn,
        // The engine's own parameters evict what has an end before anything else (volatile-lru).
        autoMinorVersionUpgrade: true,
        tags: scope.tags,
      },
      { ...child, ...scope.stateful },
    );
    const url = pulumi.interpolate`rediss://:${password.result}@${group.primaryEndpointAddress}:${port}`;
    return { url: pulumi.secret(url), ready: [group] };
  });
}
