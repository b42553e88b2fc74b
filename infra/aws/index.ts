import type { DeployCloud } from "../cloud.ts";
import { makeAddOns, makeNodeAddOns } from "./add-ons.ts";
import { makeBudget } from "./budget.ts";
import { makeCache } from "./cache.ts";
import { makeCluster } from "./cluster.ts";
import { makeIdentities, serviceAccounts } from "./identity.ts";
import { makeKarpenter } from "./karpenter.ts";
import { makeKey } from "./key.ts";
import { makeNetwork } from "./network.ts";
import { makeNodes } from "./nodes.ts";
import { makeObservability } from "./observability.ts";
import { linksOf, serviceAnnotations } from "./outputs.ts";
import { makePools, nodeGroupPatterns } from "./pools.ts";
import { makePostgres } from "./postgres.ts";
import { makeRedis } from "./redis.ts";
import { isAws, scopeOf } from "./scope.ts";

/** Everything of a plan that is AWS's. Throws an Error on a plan for another cloud. */
export const deployAws: DeployCloud = (plan) => {
  if (!isAws(plan)) throw new Error(`The plan of ${plan.stack} is for ${plan.cloud}, not for AWS.`);
  const scope = scopeOf(plan);
  const key = makeKey(scope);
  const network = makeNetwork(scope);
  const cluster = makeCluster(scope, { network, key });
  const after = makeNodeAddOns(scope, cluster);
  const nodes = makeNodes(scope, { cluster, network, after });
  const pools = makePools(scope, { cluster, network, role: nodes.role, after });
  const addOns = makeAddOns(scope, { cluster, nodes: nodes.system });
  const karpenter = makeKarpenter(scope, cluster);
  const cache = makeCache(scope, key);
  const redis = makeRedis(scope, { network, cluster, key });
  const postgres = makePostgres(scope, { network, cluster, key });
  const observability = makeObservability(scope, { network, postgres, key });
  const identities = makeIdentities(scope, { cluster, cache, key, observability });
  makeBudget(scope);
  return {
    kubeconfig: cluster.kubeconfig,
    dependsOn: [
      ...network.ready,
      ...cluster.ready,
      ...after,
      nodes.system,
      ...pools,
      ...addOns,
      ...karpenter,
      ...cache.ready,
      ...identities,
      ...(redis?.ready ?? []),
      ...(postgres?.ready ?? []),
      ...observability.ready,
    ],
    serviceAccounts,
    identityPodLabels: {},
    storageEnv: { AWS_REGION: plan.region },
    serviceAnnotations: serviceAnnotations(scope),
    redisUrl: redis?.url ?? null,
    postgresUrl: postgres?.url ?? null,
    metricsWriteUrl: observability.metricsWriteUrl,
    nodeGroupPatterns: nodeGroupPatterns(plan),
    links: linksOf(scope, observability),
  };
};
