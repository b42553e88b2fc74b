import * as elasticache from "@pulumi/aws/elasticache/index.js";
import type * as kms from "@pulumi/aws/kms/index.js";
import * as pulumi from "@pulumi/pulumi";
import * as random from "@pulumi/random";
import type { Cluster } from "./cluster.ts";
import type { Network } from "./network.ts";
import { part, type Scope } from "./scope.ts";
import { listener } from "./security-groups.ts";

const port = 6379;

/** Valkey on ElastiCache, with TLS and a password. Its URL is a secret. Null: in the cluster. */
export function makeRedis(
  scope: Scope,
  { network, cluster, key }: { readonly network: Network; readonly cluster: Cluster; readonly key: kms.Key },
): { readonly url: pulumi.Output<string>; readonly ready: readonly pulumi.Resource[] } | null {
  const { redis, prefix } = scope.plan;
  if (redis.mode === "in-cluster") return null;
  return part(scope, "redis", (child) => {
    const group = listener(
      "redis",
      {
        vpcId: network.vpcId,
        description: "Redis",
        port,
        from: { referencedSecurityGroupId: cluster.securityGroupId },
      },
      { scope, child },
    );
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
    const store = new elasticache.ReplicationGroup(
      "redis",
      {
        ...storeArgs(scope),
        subnetGroupName: subnets.name,
        securityGroupIds: [group.id],
        authToken: pulumi.secret(password.result),
        kmsKeyId: key.arn,
      },
      { ...child, ...scope.stateful },
    );
    const url = pulumi.interpolate`rediss://:${password.result}@${store.primaryEndpointAddress}:${port}`;
    return { url: pulumi.secret(url), ready: [store, ...group.ready] };
  });
}

/** What follows from the plan. The engine's own parameters evict what has an end before anything else (volatile-lru). */
function storeArgs({ plan, tags }: Scope): elasticache.ReplicationGroupArgs {
  const { redis, prefix } = plan;
  return {
    replicationGroupId: `${prefix}-redis`,
    description: "Limits, sessions and demand of the gateway",
    engine: "valkey",
    engineVersion: redis.version,
    autoMinorVersionUpgrade: true,
    nodeType: redis.sku,
    numCacheClusters: redis.highAvailability ? 2 : 1,
    automaticFailoverEnabled: redis.highAvailability,
    multiAzEnabled: redis.highAvailability,
    port,
    transitEncryptionEnabled: true,
    atRestEncryptionEnabled: true,
    tags,
  };
}
