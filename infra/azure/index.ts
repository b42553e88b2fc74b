import type { DeployCloud } from "../cloud.ts";
import { makeBudget } from "./budget.ts";
import { makeCache } from "./cache.ts";
import { makeCluster } from "./cluster.ts";
import { makeIdentities } from "./identity.ts";
import { makeNetwork } from "./network.ts";
import { makeObservability } from "./observability.ts";
import { linksOf, serviceAnnotations } from "./outputs.ts";
import { makePools, nodeGroupPatterns } from "./pools.ts";
import { makePostgres } from "./postgres.ts";
import { makeRedis } from "./redis.ts";
import { isAzure, scopeOf } from "./scope.ts";

/** Everything of a plan that is Azure's. Throws an Error on a plan for another cloud. */
export const deployAzure: DeployCloud = (plan) => {
  if (!isAzure(plan)) throw new Error(`The plan of ${plan.stack} is for ${plan.cloud}, not for Azure.`);
  const scope = scopeOf(plan);
  const network = makeNetwork(scope);
  const cluster = makeCluster(scope, network);
  const pools = makePools(scope, { cluster, network });
  const cache = makeCache(scope, network);
  const identities = makeIdentities(scope, { cluster, cache });
  const redis = makeRedis(scope, network);
  const postgres = makePostgres(scope, network);
  const observability = makeObservability(scope, { cluster, postgres });
  makeBudget(scope, new Date());
  return {
    kubeconfig: cluster.kubeconfig,
    dependsOn: [
      ...cluster.ready,
      ...pools.values(),
      ...cache.ready,
      ...identities.ready,
      ...(redis?.ready ?? []),
      ...(postgres?.ready ?? []),
      ...observability.ready,
    ],
    serviceAccounts: identities.serviceAccounts,
    identityPodLabels: { "azure.workload.identity/use": "true" },
    storageEnv: { AZURE_STORAGE_ACCOUNT_NAME: cache.account },
    serviceAnnotations: serviceAnnotations(scope),
    redisUrl: redis?.url ?? null,
    postgresUrl: postgres?.url ?? null,
    metricsWriteUrl: null,
    nodeGroupPatterns: nodeGroupPatterns(pools),
    links: linksOf(scope, observability),
  };
};
