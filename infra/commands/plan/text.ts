import { costParts, costRange, groupsOf } from "../../plan/cost-range.ts";
import type { CloudPlan, LocalPlan, Plan, PlannedFleet, PlannedPool } from "../../plan/plan.ts";
import { count, gib, money, usdPerHour } from "../../plan/text.ts";

/** The plan for people: pools, fleets, models, what stands beside them, cost, and why each is as it is. */
export function planText(plan: Plan): string {
  return plan.cloud === "local" ? localText(plan) : cloudText(plan);
}

function localText(plan: LocalPlan): string {
  const fleets = plan.fleets.map(({ name, engine, models }) => `  ${name}: ${models.join(", ")} on ${engine.kind}`);
  const address = `http://${plan.gateway.host}:${plan.gateway.port}/v1`;
  return [`${plan.stack}: one machine, ${address}`, "", "Fleets", ...fleets, ...reasons(plan.why), ""].join("\n");
}

function cloudText(plan: CloudPlan): string {
  const { cluster, environment, region, cloud } = plan;
  const version = `Kubernetes ${cluster.kubernetesVersion}`;
  return [
    `${plan.stack}: ${plan.displayName}, ${environment} on ${cloud} in ${region}, ${version}`,
    "",
    "Pools",
    ...groupsOf(plan).flatMap(groupText),
    "",
    "Fleets",
    ...plan.fleets.flatMap(fleetText),
    "",
    "Models",
    ...plan.models.flatMap(({ id, fleet, origin, why }) => [`  ${id} in ${fleet}, from ${origin}`, ...reasons(why)]),
    "",
    "Beside them",
    ...besideText(plan),
    "",
    ...costText(plan),
    "",
  ].join("\n");
}

function groupText(pools: readonly [PlannedPool, ...PlannedPool[]]): string[] {
  const [{ group, groupNodes }] = pools;
  return [
    `  ${group}: ${groupNodes.min} to ${count(groupNodes.max, "node")}`,
    ...pools.flatMap((pool) => [
      `    ${pool.order + 1}. ${pool.name}: ${pool.capacity}, ${usdPerHour(pool.price.usdPerHour)}, by ${pool.provisioner}`,
      ...reasons(pool.why, "       "),
    ]),
  ];
}

function fleetText(fleet: PlannedFleet): string[] {
  const { replicas, memory, throughput, pod } = fleet;
  const models = fleet.models.length === 1 ? fleet.models[0] : `${fleet.models.length} models`;
  return [
    `  ${fleet.name}: ${models} on ${fleet.engine.kind}, ${replicas.min} to ${count(replicas.max, "replica")} on ${fleet.pool}`,
    `    ${count(fleet.gpusPerReplica, "GPU")} each; a GPU: ${gib(memory.weightsGiB)} weights, ${gib(memory.overheadGiB)} ` +
      `buffers, ${gib(memory.kvCacheGiB)} KV cache, ${gib(memory.usableGiB)} in all`,
    `    pod: ${pod.cpuMillis} millicores, ${pod.memoryGiB} GiB of RAM, ${pod.cacheGiB} GiB of cache, ${pod.image}`,
    ...reasons([...fleet.why, ...fleet.scaling.why], "    "),
    ...(throughput === null
      ? ["    - tokens per second: nobody published this model on these GPUs"]
      : [`    - ${throughput.outputTokensPerSecond} tokens/s a replica: ${throughput.source}`]),
  ];
}

function besideText(plan: CloudPlan): string[] {
  const { cluster, gateway, cache, redis, postgres, observability, network, budget, addOns } = plan;
  const items = [
    [`cluster ${cluster.name}`, cluster.why],
    [`gateway: ${gateway.replicas.min} to ${count(gateway.replicas.max, "replica")}`, gateway.why],
    [`cache ${cache.uri}`, cache.why],
    [`redis: ${redis.mode}, ${redis.sku}`, redis.why],
    [`postgres: ${postgres.mode}, ${postgres.sku}`, postgres.why],
    [`observability: ${observability.mode}`, observability.why],
    [`network ${network.cidr}`, network.why],
    ...addOns.map(({ name, why }) => [`add-on ${name}`, why] as const),
    [`budget: $${money(budget.monthlyUsd)} a month`, budget.why],
  ] as const;
  return items.flatMap(([title, why]) => [`  ${title}`, ...reasons(why)]);
}

function costText(plan: CloudPlan): string[] {
  const { minUsdPerHour, maxUsdPerHour, unknown } = costRange(plan);
  const rest = unknown.length === 0 ? "" : `, and what ${unknown.join(", ")} cost, which is unknown`;
  return [
    `Nodes and stores: $${money(minUsdPerHour)} to $${money(maxUsdPerHour)} an hour by the list${rest}`,
    ...costParts(plan).map(({ name, min, max }) => `  ${name}: ${part(min)} to ${part(max)}`),
    `  Everything else and months: npm run cost -- ${plan.stack}`,
  ];
}

function part(value: number | null): string {
  return value === null ? "unknown" : `$${money(value)}`;
}

function reasons(why: readonly string[], indent = "    "): string[] {
  return why.map((reason) => `${indent}- ${reason}`);
}
