import { repeated } from "./repeated.ts";
import type { CloudFleet, CloudStack, StackPool } from "./schema.ts";

/** What only stacks on a cloud have: pools, placement, the endpoint, the network. */
export function cloudChecks(stack: CloudStack): string[] {
  return [
    ...poolNames(stack),
    ...stack.pools.flatMap((pool, at) => poolProblems(stack, pool).map((problem) => `pools[${at}].${problem}`)),
    ...stack.fleets.flatMap((fleet, at) => fleetProblems(stack, fleet).map((problem) => `fleets[${at}].${problem}`)),
    ...gatewayProblems(stack),
    ...networkProblems(stack),
  ];
}

interface Bounds {
  readonly min: number;
  readonly max: number;
}

function crossed({ min, max }: Bounds, path: string, upper: string): string[] {
  return min > max ? [`${path}: ${min} is above ${upper} ${max}; lower it, or raise ${upper}`] : [];
}

function poolNames({ pools }: CloudStack): string[] {
  const names = pools.map(({ name }) => name);
  return [
    ...repeated(names).map((at) => `pools[${at}].name: another pool has this name`),
    ...pools.flatMap(({ formerNames }, at) =>
      formerNames.flatMap((former, index) =>
        names.includes(former)
          ? [`pools[${at}].formerNames[${index}]: a pool is named \`${former}\` now; leave it out`]
          : [],
      ),
    ),
  ];
}

function poolProblems(stack: CloudStack, pool: StackPool): string[] {
  const bought = pool.capacity.filter((capacity) => capacity === "reserved" || capacity === "block");
  const problems = crossed({ min: pool.minNodes, max: pool.maxNodes }, "minNodes", "maxNodes");
  problems.push(...repeated(pool.sizes).map((at) => `sizes[${at}]: listed twice`));
  problems.push(...repeated(pool.capacity).map((at) => `capacity[${at}]: listed twice`));
  if (bought.length > 0 && pool.reservation === undefined) {
    problems.push(`reservation: is missing, and capacity has ${bought.join(", ")}; name what was bought`);
  }
  if (bought.length === 0 && pool.reservation !== undefined) {
    problems.push("reservation: unused; put `reserved` first in capacity");
  }
  if (stack.cloud === "azure" && pool.capacity.includes("block")) {
    problems.push("capacity: capacity blocks are sold on AWS alone; use reserved");
  }
  if (stack.cloud === "aws" && pool.capacity.includes("block") && pool.zones?.length !== 1) {
    problems.push("zones: a capacity block is in one zone; name it");
  }
  return [...problems, ...zoneProblems(stack, pool)];
}

function zoneProblems({ cloud, region, zones }: CloudStack, pool: StackPool): string[] {
  return (pool.zones ?? []).flatMap((zone, at) => {
    if (zones !== undefined && !zones.includes(zone)) {
      return [`zones[${at}]: \`${zone}\` is none of the stack's zones; there are ${zones.join(", ")}`];
    }
    return zoneProblem(cloud, region, zone).map((problem) => `zones[${at}]: ${problem}`);
  });
}

function zoneProblem(cloud: CloudStack["cloud"], region: string, zone: string): string[] {
  if (cloud === "azure") return /^[123]$/.test(zone) ? [] : [`\`${zone}\` is no zone of Azure; there are 1, 2, 3`];
  return zone.startsWith(region) ? [] : [`\`${zone}\` is not in ${region}; its zones are named ${region}a and so on`];
}

function fleetProblems(stack: CloudStack, fleet: CloudFleet): string[] {
  const problems = crossed(fleet.replicas, "replicas.min", "replicas.max");
  problems.push(...repeated(fleet.models).map((at) => `models[${at}]: listed twice`));
  if ((fleet.residentModels ?? 1) > fleet.models.length) {
    problems.push(`residentModels: ${fleet.residentModels} of ${fleet.models.length} models; lower it`);
  }
  for (const [at, { replicas, start, end }] of fleet.scaling.schedule.entries()) {
    if (replicas > fleet.replicas.max) {
      problems.push(
        `scaling.schedule[${at}].replicas: ${replicas} is above replicas.max ${fleet.replicas.max}; lower it`,
      );
    }
    for (const [key, value] of Object.entries({ start, end })) {
      if (value.trim().split(/\s+/).length !== 5) {
        problems.push(`scaling.schedule[${at}].${key}: a cron expression has 5 fields, such as \`0 8 * * 1-5\``);
      }
    }
  }
  return [...problems, ...placeProblems(stack, fleet)];
}

function placeProblems({ pools }: CloudStack, { pool: name, gpu, spot }: CloudFleet): string[] {
  if (name === undefined) return gpu === undefined ? ["pool: is missing; name a pool, or set gpu: auto"] : [];
  if (gpu !== undefined) return ["gpu: auto makes a pool of its own; leave out gpu, or pool"];
  const pool = pools.find((candidate) => candidate.name === name);
  if (pool === undefined) {
    const renamed = pools.find(({ formerNames }) => formerNames.includes(name));
    if (renamed !== undefined) return [`pool: \`${name}\` is named \`${renamed.name}\` now`];
    const there = pools.map((candidate) => `\`${candidate.name}\``).join(", ");
    return [`pool: no pool named \`${name}\`; there are ${there || "none: add one, or set gpu: auto"}`];
  }
  const isSpotAlone = pool.capacity.every((capacity) => capacity === "spot");
  if (isSpotAlone && !spot) {
    return [`spot: false, and pool \`${name}\` has spot nodes alone; set spot: true, or add on-demand to its capacity`];
  }
  return [];
}

function gatewayProblems({ gateway, models, cluster }: CloudStack): string[] {
  const problems = crossed(gateway.replicas, "gateway.replicas.min", "gateway.replicas.max");
  if (cluster.systemNodes !== undefined) {
    problems.push(...crossed(cluster.systemNodes, "cluster.systemNodes.min", "cluster.systemNodes.max"));
  }
  problems.push(
    ...repeated(gateway.tenants.map(({ id }) => id)).map(
      (at) => `gateway.tenants[${at}].id: another tenant has this id`,
    ),
  );
  const ids = models.map(({ id }) => id);
  const served = new Set([
    ...ids,
    ...models.flatMap(({ id, adapters }) => adapters.map(({ name }) => `${id}:${name}`)),
    ...Object.keys(gateway.aliases),
    "*",
  ]);
  const unknown = (path: string, name: string): string[] =>
    served.has(name) ? [] : [`${path}: no model named \`${name}\`; there are ${ids.join(", ")}`];
  for (const [at, tenant] of gateway.tenants.entries()) {
    problems.push(...tenant.models.flatMap((name, index) => unknown(`gateway.tenants[${at}].models[${index}]`, name)));
  }
  for (const [alias, targets] of Object.entries(gateway.aliases)) {
    if (ids.includes(alias)) problems.push(`gateway.aliases.${alias}: a model has this id; choose another name`);
    const own = targets.flatMap(({ model }, at) => unknown(`gateway.aliases.${alias}[${at}].model`, model));
    problems.push(...own);
  }
  for (const [at, { models: seen = [] }] of (gateway.hooks ?? []).entries()) {
    problems.push(...seen.flatMap((name, index) => unknown(`gateway.hooks[${at}].models[${index}]`, name)));
  }
  const cached = gateway.responseCache?.models ?? [];
  problems.push(...cached.flatMap((name, at) => unknown(`gateway.responseCache.models[${at}]`, name)));
  return problems;
}

/** The smallest range that nodes of every zone, endpoints and pods' addresses fit in. */
const longestPrefix = 20;

function networkProblems(stack: CloudStack): string[] {
  const { network, cloud, region, zones, cluster } = stack;
  const problems: string[] = [];
  const [address = "", prefix = ""] = network.cidr.split("/");
  if (address.split(".").some((part) => Number(part) > 255) || Number(prefix) < 12 || Number(prefix) > longestPrefix) {
    problems.push(`network.cidr: ${network.cidr} must be a range from /12 to /${longestPrefix}, such as 10.40.0.0/16`);
  }
  if (!network.privateCluster && network.apiAllowedAddresses.length === 0) {
    problems.push(
      "network.apiAllowedAddresses: empty opens the Kubernetes API to everyone; name ranges, or set privateCluster",
    );
  }
  if (network.privateCluster && network.apiAllowedAddresses.length > 0) {
    problems.push("network.apiAllowedAddresses: a private cluster has no public API; leave it out");
  }
  if (cloud === "aws" && cluster.registry !== undefined) {
    problems.push("cluster.registry: nodes on AWS need no permission of ours to pull from ECR; leave it out");
  }
  if (cloud === "aws" && zones?.length === 1) problems.push("zones: EKS needs two; name another");
  const wrong = (zones ?? []).flatMap((zone, at) =>
    zoneProblem(cloud, region, zone).map((problem) => `zones[${at}]: ${problem}`),
  );
  return [...problems, ...wrong];
}
