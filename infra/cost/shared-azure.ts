import type { CloudPlan } from "../plan/plan.ts";
import { eachLevel, type Levels } from "./report.ts";
import {
  always,
  feeItem,
  inClusterDisks,
  sampleBatches,
  stockItem,
  type SharedContext,
  type SharedItem,
} from "./shared-items.ts";

/** AKS gives system nodes of the sizes in use a disk of this size (P10). */
const systemDiskGiB = 128;

/** What a stack on Azure makes beside GPU nodes and stores: the same decisions as in `infra/azure`. */
export function itemsOfAzure(plan: CloudPlan, context: SharedContext): SharedItem[] {
  return [...networkItems(plan), ...storageItems(plan), ...diskItems(plan, context), ...watchItems(plan, context)];
}

function networkItems(plan: CloudPlan): SharedItem[] {
  const isFull = plan.network.endpoints === "full";
  const endpoints = [
    plan.environment === "prod" || isFull ? "cache" : null,
    plan.redis.mode === "managed" ? "Redis" : null,
    isFull && plan.cluster.registry !== null ? "registry" : null,
  ].filter((name) => name !== null);
  const isPublic = !plan.gateway.config.internal;
  return [
    controlPlane(plan),
    feeItem("nat", "NAT gateway", { count: 1, unit: "gateway", item: "NAT gateway" }),
    feeItem("addresses", `Public addresses (outgoing${isPublic ? ", endpoint" : ""})`, {
      count: isPublic ? 2 : 1,
      unit: "address",
      item: "Static public IP Standard",
    }),
    feeItem("endpoints", `Private endpoints (${endpoints.join(", ") || "none"})`, {
      count: endpoints.length,
      unit: "endpoint",
      item: "Private endpoint",
    }),
    feeItem("load-balancer", "Load balancer", {
      count: 1,
      unit: "balancer",
      item: "Load balancer Standard, first five rules",
    }),
  ];
}

function controlPlane({ environment }: CloudPlan): SharedItem {
  const paid = feeItem("control-plane", "AKS control plane, Standard tier", {
    count: 1,
    unit: "cluster",
    item: "AKS control plane Standard tier (uptime SLA)",
  });
  if (environment === "prod") return paid;
  const source = "the Free tier has no fee, and no promise of uptime";
  return {
    ...paid,
    name: "AKS control plane, Free tier",
    price: { usd: 0, source, asOf: "2026-08-21", isHourly: true },
  };
}

function storageItems(plan: CloudPlan): SharedItem[] {
  const { cache, postgres } = plan;
  if (cache.cloud !== "azure") return [];
  const { premium, redundancy, contentsGiB } = cache;
  const items = [
    stockItem("cache", `Model cache (${contentsGiB} GiB, ${premium ? "premium " : ""}${redundancy})`, {
      quantity: always(contentsGiB),
      item: premium ? `Premium block blob ${redundancy}` : `Blob Hot ${redundancy} (first 50 TB)`,
    }),
  ];
  if (postgres.mode === "in-cluster") return [...items, ...inClusterDisks(plan, "Premium SSD LRS by the GiB")];
  const copies = postgres.highAvailability ? 2 : 1;
  const storage = stockItem("postgres-storage", `PostgreSQL storage (${copies} x ${postgres.storageGiB} GiB)`, {
    quantity: always(postgres.storageGiB * copies),
    item: "PostgreSQL flexible server storage",
  });
  return [...items, { ...storage, category: "Databases" }];
}

/** Disks of nodes and of stores in the cluster are sold by the size class. */
function diskItems(plan: CloudPlan, { pools, systemNodes }: SharedContext): SharedItem[] {
  const managed = plan.pools.filter(({ node }) => node.osDisk === "managed");
  const counts = (sizeGiB: number): Levels<number> => {
    const names = new Set(managed.filter(({ node }) => node.osDiskGiB === sizeGiB).map(({ name }) => name));
    const variants = pools.flatMap((pool) => pool.variants.filter(({ name }) => names.has(name)));
    const system = (level: keyof Levels<number>): number => (sizeGiB === systemDiskGiB ? systemNodes[level] : 0);
    return eachLevel((level) => variants.reduce((sum, { nodes }) => sum + nodes[level], system(level)));
  };
  const sizes = [...new Set([systemDiskGiB, ...managed.map(({ node }) => node.osDiskGiB)])];
  return sizes.map((sizeGiB) =>
    stockItem(`disks-${sizeGiB}`, `OS disks of ${sizeGiB} GiB`, {
      quantity: counts(sizeGiB),
      unit: "disk-month",
      item: `Premium SSD LRS ${sizeGiB} GiB`,
    }),
  );
}

function watchItems(plan: CloudPlan, context: SharedContext): SharedItem[] {
  const category = { category: "Management and Governance", isHiddenFloor: true } as const;
  const logs = stockItem("logs", "Logs of the control plane (Log Analytics)", {
    quantity: always(context.assumptions.logsGiBPerMonth),
    unit: "GB",
    item: "Log Analytics ingest",
  });
  if (plan.observability.mode === "in-cluster") return [{ ...logs, ...category }];
  const metrics = stockItem("metrics", "Managed Prometheus", {
    quantity: sampleBatches(context),
    unit: "10M samples",
    item: "Managed Prometheus ingest",
  });
  const grafana = feeItem("grafana", "Managed Grafana (Standard)", {
    count: 1,
    unit: "instance",
    item: "Managed Grafana Standard instance",
  });
  return [logs, metrics, grafana].map((item) => ({ ...item, ...category }));
}
