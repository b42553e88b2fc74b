import type { CloudPlan } from "../plan/plan.ts";
import { eachLevel } from "./report.ts";
import {
  always,
  feeItem,
  inClusterDisks,
  sampleBatches,
  stockItem,
  type SharedContext,
  type SharedItem,
} from "./shared-items.ts";

/** Services with an interface endpoint in every zone, with `endpoints: full`. S3's is a gateway, which is free. */
const endpointNames = ["autoscaling", "ec2", "ecr.api", "ecr.dkr", "eks", "eks-auth", "sqs", "ssm", "sts"] as const;

/** Root disk of system nodes. */
const systemDiskGiB = 80;

/** What a stack on AWS makes beside GPU nodes and stores: the same decisions as in `infra/aws`. */
export function itemsOfAws(plan: CloudPlan, context: SharedContext): SharedItem[] {
  return [...networkItems(plan), ...storageItems(plan, context), ...watchItems(plan, context)];
}

function networkItems({ zones, network, environment, gateway, observability }: CloudPlan): SharedItem[] {
  const services = endpointNames.length + (observability.mode === "managed" ? 1 : 0);
  const endpoints = network.endpoints === "full" ? services : 0;
  const gateways = environment === "prod" ? zones.length : 1;
  const balancerAddresses = gateway.config.internal ? 0 : zones.length;
  return [
    feeItem("control-plane", "EKS control plane", {
      count: 1,
      unit: "cluster",
      item: "EKS control plane, standard support",
    }),
    feeItem("nat", `NAT gateways (${gateways === 1 ? "one for all zones" : "one a zone"})`, {
      count: gateways,
      unit: "gateway",
      item: "NAT gateway",
    }),
    feeItem("addresses", "Public IPv4 addresses (NAT, load balancer)", {
      count: gateways + balancerAddresses,
      unit: "address",
      item: "Public IPv4 address",
    }),
    feeItem("endpoints", `Interface endpoints (${endpoints} in each of ${zones.length} zones)`, {
      count: endpoints * zones.length,
      unit: "endpoint and zone",
      item: "VPC interface endpoint",
    }),
    feeItem("load-balancer", "Network load balancer", { count: 1, unit: "balancer", item: "Network load balancer" }),
  ];
}

function storageItems(plan: CloudPlan, { pools, systemNodes }: SharedContext): SharedItem[] {
  const { contentsGiB } = plan.cache;
  const { postgres } = plan;
  const sizes = new Map(plan.pools.map(({ name, node }) => [name, node.osDisk === "managed" ? node.osDiskGiB : 0]));
  const variants = pools.flatMap((pool) => pool.variants);
  const diskGiB = eachLevel((level) =>
    variants.reduce(
      (sum, { name, nodes }) => sum + nodes[level] * (sizes.get(name) ?? 0),
      systemNodes[level] * systemDiskGiB,
    ),
  );
  const items = [
    stockItem("cache", `Model cache (${contentsGiB} GiB in S3)`, {
      quantity: always(contentsGiB),
      item: "S3 Standard storage",
    }),
    stockItem("disks", "OS disks of nodes (gp3)", { quantity: diskGiB, item: "EBS gp3 storage" }),
  ];
  if (postgres.mode === "in-cluster") return [...items, ...inClusterDisks(plan, "EBS gp3 storage")];
  const zones = postgres.highAvailability ? "Multi-AZ" : "Single-AZ";
  const storage = stockItem("postgres-storage", `PostgreSQL storage (${postgres.storageGiB} GiB, ${zones})`, {
    quantity: always(postgres.storageGiB),
    item: `RDS gp3 storage, ${zones}`,
  });
  return [...items, { ...storage, category: "Databases" }];
}

function watchItems(plan: CloudPlan, context: SharedContext): SharedItem[] {
  const category = { category: "Management and Governance", isHiddenFloor: true } as const;
  const key = stockItem("key", "KMS key", { quantity: always(1), unit: "key-month", item: "KMS key" });
  const logs = stockItem("logs", "Logs of the control plane (CloudWatch)", {
    quantity: always(context.assumptions.logsGiBPerMonth),
    unit: "GB",
    item: "CloudWatch Logs ingest",
  });
  const metrics = stockItem("metrics", "Managed Prometheus", {
    quantity: sampleBatches(context),
    unit: "10M samples",
    item: "Managed Prometheus ingest",
  });
  const items = plan.observability.mode === "managed" ? [key, logs, metrics] : [key, logs];
  return items.map((item) => ({ ...item, ...category }));
}
