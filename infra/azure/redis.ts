import * as redisenterprise from "@pulumi/azure-native/redisenterprise/index.js";
import * as pulumi from "@pulumi/pulumi";
import { concern, type Child } from "../lib/concern.ts";
import { limitedName } from "../lib/names.ts";
import type { Network } from "./network.ts";
import { privateEndpoint } from "./private-link.ts";
import type { Scope } from "./scope.ts";

/** Azure Managed Redis listens here. */
const port = 10_000;

/** Azure Managed Redis, reached through a private endpoint; its URL with TLS and the key is a secret. Null: in the cluster. */
export function makeRedis(
  scope: Scope,
  network: Network,
): { readonly url: pulumi.Output<string>; readonly ready: readonly pulumi.Resource[] } | null {
  if (scope.plan.redis.mode === "in-cluster") return null;
  return concern("azure", "redis", (child) => {
    const { cluster, database } = databaseOf(scope, child);
    const keys = redisenterprise.listDatabaseKeysOutput(
      {
        resourceGroupName: scope.place.resourceGroupName,
        clusterName: cluster.name,
        databaseName: database.name,
      },
      child,
    );
    const target = { id: cluster.id, group: "redisEnterprise", zoneName: "privatelink.redis.azure.net" };
    return {
      url: pulumi.secret(
        pulumi
          .all([keys.primaryKey, cluster.hostName])
          .apply(([key, host]) => `rediss://:${encodeURIComponent(key)}@${host}:${port}`),
      ),
      ready: [database, ...privateEndpoint("redis", target, { scope, network, child })],
    };
  });
}

/** One database, as large as the plan says. It evicts the response cache before anything that has no end. */
function databaseOf(
  { plan, place, tags, stateful }: Scope,
  child: Child,
): { readonly cluster: redisenterprise.RedisEnterprise; readonly database: redisenterprise.Database } {
  const cluster = new redisenterprise.RedisEnterprise(
    "redis",
    {
      ...place,
      clusterName: limitedName(`${plan.prefix}-redis`, 60),
      sku: { name: plan.redis.sku },
      highAvailability: plan.redis.highAvailability ? "Enabled" : "Disabled",
      minimumTlsVersion: "1.2",
      publicNetworkAccess: "Disabled",
      tags: tags,
    },
    { ...child, ...stateful },
  );
  const database = new redisenterprise.Database(
    "redis-database",
    {
      resourceGroupName: place.resourceGroupName,
      clusterName: cluster.name,
      databaseName: "default",
      port,
      clientProtocol: "Encrypted",
      // One address for everything: clients need to know nothing of shards.
      clusteringPolicy: "EnterpriseCluster",
      evictionPolicy: "VolatileLRU",
      accessKeysAuthentication: "Enabled",
    },
    { ...child, ...stateful },
  );
  return { cluster, database };
}
