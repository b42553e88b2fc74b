import { gatewayImage } from "../catalog/images.ts";
import { charts, kubernetesVersion, type ChartName } from "../catalog/add-ons.ts";
import { postgresSizes, redisSizes, servicePrice, stores, systemSizes } from "../catalog/services.ts";
import type { CloudStack } from "../stack/schema.ts";
import { imageName } from "./fleets.ts";
import { storeUri } from "./models.ts";
import type { CloudPlan, PlannedAddOn, PlannedStore } from "./plan.ts";
import { count, gib, round } from "./text.ts";

const isProd = (stack: CloudStack): boolean => stack.environment === "prod";

/** The cluster and the nodes that run the gateway and add-ons. */
export function plannedCluster(stack: CloudStack, report: (problem: string) => void): CloudPlan["cluster"] {
  const { cluster, region, cloud } = stack;
  const sizes = systemSizes[cloud];
  const asked = sizes.find(({ name }) => name === cluster.systemSize);
  if (cluster.systemSize !== undefined && asked === undefined) {
    report(
      `cluster.systemSize: no size named \`${cluster.systemSize}\` in the catalogue; there are ${sizes.map(({ name }) => name).join(", ")}`,
    );
  }
  const size = asked ?? sizes[0];
  if (size === undefined) throw new Error(`no system sizes of ${cloud} in the catalogue`);
  const nodes = cluster.systemNodes ?? (isProd(stack) ? { min: 3, max: 6 } : { min: 1, max: 3 });
  return {
    name: stack.prefix,
    kubernetesVersion: cluster.kubernetesVersion ?? kubernetesVersion,
    admins: cluster.admins,
    registry: cluster.registry ?? null,
    system: {
      size: size.name,
      vcpus: size.vcpus,
      memoryGiB: size.memoryGiB,
      minNodes: nodes.min,
      maxNodes: nodes.max,
      price: servicePrice(size, region, 1),
    },
    why: [
      `${nodes.min} to ${count(nodes.max, "node")} of ${size.name} for the gateway and add-ons` +
        (cluster.systemNodes === undefined ? ` (${stack.environment})` : ""),
      stack.network.privateCluster
        ? "the Kubernetes API has no public address: run Pulumi from inside the network"
        : `the Kubernetes API is public for ${stack.network.apiAllowedAddresses.join(", ") || "nobody: name ranges"}`,
    ],
  };
}

/** The OpenAI endpoint. */
export function plannedGateway(stack: CloudStack): CloudPlan["gateway"] {
  const { gateway } = stack;
  // Node's own heap and buffers, and all bodies that may be held.
  const memoryMiB = 512 + Math.ceil(gateway.hold.maxMiB) + 256;
  return {
    replicas: gateway.replicas,
    image: imageName(stack, gatewayImage),
    pod: { cpuMillis: 1000, memoryMiB },
    config: gateway,
    why: [
      "one core a replica: the gateway is one process with one thread",
      `${memoryMiB} MiB: ${gateway.hold.maxMiB} MiB of held requests and what Node needs`,
      ...(gateway.internal ? ["internal: reachable inside the network alone"] : []),
      ...(gateway.allowedAddresses.length > 0 ? [`only ${gateway.allowedAddresses.join(", ")} may reach it`] : []),
    ],
  };
}

/** Where models are kept for good. */
export function plannedCache(stack: CloudStack, contentsGiB: number): CloudPlan["cache"] {
  const common = {
    uri: storeUri(stack),
    nodeDirectory: stack.cache.directory,
    contentsGiB: round(contentsGiB),
    keepOldVersionsDays: isProd(stack) ? 90 : 14,
  };
  const contents = `${gib(contentsGiB)} of models and adapters; agents read them from here alone`;
  if (stack.cloud === "aws") {
    const why = [contents, "S3 over a gateway endpoint: no data charge, where NAT would cost 0.045 USD a GB"];
    return { ...common, cloud: "aws", bucket: stack.cache.bucket, why };
  }
  const { account, container, premium } = stack.cache;
  const redundancy = stack.cache.redundancy ?? (isProd(stack) ? "ZRS" : "LRS");
  const why = [contents, `${redundancy}${stack.cache.redundancy === undefined ? ` (${stack.environment})` : ""}`];
  if (premium) why.push("premium blocks cost about nine times as much a GB");
  return { ...common, cloud: "azure", account, container, redundancy, premium, why };
}

/** Redis: rate limits, sessions, demand. */
export function plannedRedis(stack: CloudStack, report: (problem: string) => void): PlannedStore {
  const { mode, memoryGiB, highAvailability } = {
    mode: isProd(stack) ? ("managed" as const) : ("in-cluster" as const),
    memoryGiB: 1,
    highAvailability: undefined,
    ...stack.redis,
  };
  const isHa = (highAvailability ?? isProd(stack)) && mode === "managed";
  const why = [modeReason(stack, mode, stack.redis !== undefined)];
  if (mode === "in-cluster") {
    const { image, version } = stores.redis;
    return { ...inCluster(image, version, { memoryGiB, storageGiB: Math.ceil(memoryGiB * 2) }), why };
  }
  const sizes = redisSizes[stack.cloud];
  const size = sizes.find((each) => each.memoryGiB >= memoryGiB) ?? sizes.at(-1);
  if (size === undefined) throw new Error(`no sizes of Redis on ${stack.cloud} in the catalogue`);
  if (size.memoryGiB < memoryGiB) {
    report(`redis.memoryGiB: ${memoryGiB} is more than the largest, ${size.name} with ${size.memoryGiB}; lower it`);
  }
  return {
    mode,
    sku: size.name,
    version: stores.redis.managed[stack.cloud],
    memoryGiB: size.memoryGiB,
    storageGiB: 0,
    highAvailability: isHa,
    price: servicePrice(size, stack.region, isHa ? 2 : 1),
    why: [...why, `${size.name}: the smallest with ${memoryGiB} GiB`],
  };
}

/** PostgreSQL: tenants, keys, usage, files, vectors. */
export function plannedPostgres(stack: CloudStack): PlannedStore {
  const { mode, storageGiB, highAvailability } = {
    mode: isProd(stack) ? ("managed" as const) : ("in-cluster" as const),
    storageGiB: 64,
    highAvailability: undefined,
    ...stack.postgres,
  };
  const why = [modeReason(stack, mode, stack.postgres !== undefined)];
  if (mode === "in-cluster") {
    const { image, version } = stores.postgres;
    return { ...inCluster(image, version, { memoryGiB: 2, storageGiB }), why };
  }
  const size = postgresSizes[stack.cloud][stack.environment];
  const isHa = highAvailability ?? isProd(stack);
  return {
    mode,
    sku: size.name,
    version: stores.postgres.managed[stack.cloud],
    memoryGiB: size.memoryGiB,
    storageGiB,
    highAvailability: isHa,
    price: servicePrice(size, stack.region, isHa ? 2 : 1),
    why: [...why, `${size.name} with ${storageGiB} GiB${isHa ? ", and a standby in another zone" : ""}`],
  };
}

function inCluster(
  image: string,
  version: string,
  { memoryGiB, storageGiB }: { readonly memoryGiB: number; readonly storageGiB: number },
): Omit<PlannedStore, "why"> {
  const price = { usdPerHour: 0, source: "runs on the system nodes, which are counted there", asOf: "2026-11-21" };
  return { mode: "in-cluster", sku: image, version, memoryGiB, storageGiB, highAvailability: false, price };
}

function modeReason(stack: CloudStack, mode: PlannedStore["mode"], isWritten: boolean): string {
  return isWritten ? `${mode}, as the stack says` : `${mode}: the default in ${stack.environment}`;
}

/** Metrics, alerts, traces. */
export function plannedObservability(stack: CloudStack): CloudPlan["observability"] {
  const { retentionDays, alertEmails, tracesEndpoint, mode: written } = stack.observability;
  const mode = written ?? (isProd(stack) ? "managed" : "in-cluster");
  return {
    mode,
    retentionDays,
    alertEmails,
    tracesEndpoint: tracesEndpoint ?? null,
    why: [modeReason(stack, mode, written !== undefined), `metrics are kept for ${count(retentionDays, "day")}`],
  };
}

/** What is installed beside ours. */
export function plannedAddOns(plan: Pick<CloudPlan, "cloud" | "pools" | "fleets" | "observability">): PlannedAddOn[] {
  const { cloud, pools, fleets, observability } = plan;
  const system = "penstock-system";
  const addOns: (PlannedAddOn | null)[] = [
    chart("dcgm-exporter", system, "GPU metrics: utilisation, memory, power, errors"),
    cloud === "azure"
      ? {
          name: "keda",
          how: { kind: "cluster", version: null },
          namespace: "kube-system",
          why: ["AKS's own KEDA add-on"],
        }
      : chart("keda", system, "scales fleets by the gateway's demand, to zero and back"),
    pools.some(({ provisioner }) => provisioner === "karpenter")
      ? chart("karpenter", system, "makes and removes GPU nodes on EKS")
      : null,
    cloud === "aws"
      ? chart("cluster-autoscaler", system, "resizes node groups: the system's, and those of GPUs")
      : null,
    pools.some(
      ({ provisioner, placementGroup, node }) =>
        provisioner === "node-group" && placementGroup && node.efaInterfaces > 0,
    )
      ? chart("aws-efa-k8s-device-plugin", system, "the fast network between nodes of one replica")
      : null,
    observability.mode === "in-cluster" || cloud === "aws"
      ? chart(
          "kube-prometheus-stack",
          "penstock-monitoring",
          observability.mode === "managed"
            ? "scrapes, and sends to the managed Prometheus"
            : "Prometheus and Grafana in the cluster",
        )
      : null,
    fleets.some(({ nodesPerReplica }) => nodesPerReplica > 1)
      ? chart("leader-worker-set", system, "replicas that span nodes")
      : null,
    {
      name: "metrics-server",
      how: { kind: "cluster", version: null },
      namespace: "kube-system",
      why: [cloud === "azure" ? "part of AKS" : "EKS's own add-on, for the gateway's autoscaler"],
    },
    chart("nvidia-device-plugin", system, "tells Kubernetes of GPUs; the drivers come with the node image"),
  ];
  return addOns.filter((addOn) => addOn !== null).toSorted((a, b) => a.name.localeCompare(b.name));
}

function chart(name: ChartName, namespace: string, reason: string): PlannedAddOn {
  const { repository, chart: chartName, version, source } = charts[name];
  return {
    name,
    how: { kind: "helm", repository, chart: chartName, version },
    namespace,
    why: [reason, `version ${version}: ${source}`],
  };
}
