import { priceOf } from "../catalog/prices.ts";
import type { GpuSize } from "../catalog/sizes.ts";
import type { CapacityType } from "../stack/cloud.ts";
import type { Cloud, CloudStack } from "../stack/schema.ts";
import { gpusOf, shortened, sizeSlug, type Group } from "./groups.ts";
import type { PlannedPool, PlannedPrice } from "./plan.ts";
import { allocatable } from "./pod.ts";
import { count, usdPerHour } from "./text.ts";

/** What the fleets of a group ask of it. */
export interface Demand {
  /** Nodes that minimum replicas keep, and maximum replicas take. */
  readonly min: number;
  readonly max: number;
  readonly multiNode: boolean;
}

const capacityWords: Readonly<Record<CapacityType, string>> = {
  reserved: "res",
  spot: "spot",
  "on-demand": "od",
  block: "block",
};

/** Taints that keep other pods away; a spot node's only fleets with `spot: true` tolerate. */
const gpuTaint = { key: "nvidia.com/gpu", value: "present", effect: "NoSchedule" } as const;
const spotTaints = {
  azure: { key: "kubernetes.azure.com/scalesetpriority", value: "spot", effect: "NoSchedule" },
  aws: { key: "penstock.dev/spot", value: "true", effect: "NoSchedule" },
} as const satisfies Record<Cloud, PlannedPool["taints"][number]>;

/** Kinds of node of a group in the order to try: each way of buying, and in it each size. */
export function variantsOf(stack: CloudStack, group: Group, demand: Demand): PlannedPool[] {
  const pairs = group.config.capacity.flatMap((capacity) => {
    // Bought capacity is of one size: the first.
    const sizes = capacity === "reserved" || capacity === "block" ? [group.sizes[0]] : group.sizes;
    return sizes.map((size) => ({ capacity, size }));
  });
  const floors = floorsOf(
    group,
    pairs.map(({ capacity }) => capacity),
  );
  return pairs.map((pair, order) => variant({ stack, group, demand }, { ...pair, order, floor: floors[order] ?? 0 }));
}

interface Place {
  readonly stack: CloudStack;
  readonly group: Group;
  readonly demand: Demand;
}

interface Pair {
  readonly capacity: CapacityType;
  readonly size: GpuSize;
  readonly order: number;
  readonly floor: number;
}

function variant({ stack, group, demand }: Place, { capacity, size, order, floor }: Pair): PlannedPool {
  const { config } = group;
  const provisioner = provisionerOf(stack.cloud, { capacity, demand, size });
  const name = variantName(config.name, capacity, size);
  const bought = capacity === "reserved" || capacity === "block" ? config.reservation : undefined;
  const price = priceOfVariant(stack.region, { capacity, size }, bought?.discountPercent ?? 0);
  // Karpenter keeps no floor of its own: what fleets do not hold, placeholder pods do.
  const held = provisioner === "karpenter" ? Math.max(0, config.minNodes - demand.min) : 0;
  return {
    name,
    formerNames: config.formerNames.map((former) => variantName(former, capacity, size)),
    group: config.name,
    order,
    size: size.name,
    capacity,
    reservationId: bought?.id ?? null,
    zones: zonesOf(stack, group, demand),
    minNodes: provisioner === "karpenter" ? 0 : floor,
    maxNodes: bought === undefined ? config.maxNodes : Math.min(config.maxNodes, bought.nodes),
    groupNodes: { min: Math.max(config.minNodes, demand.min) + config.warmSpares, max: config.maxNodes },
    warmSpares: order === 0 ? config.warmSpares + held : 0,
    gpu: {
      model: size.gpu.model,
      count: size.gpu.count,
      memoryGiB: size.gpu.memoryGiB,
      nvlink: size.nvlink,
      computeCapability: size.gpu.computeCapability,
    },
    node: nodeOf(size, config.osDiskGiB),
    provisioner,
    placementGroup: demand.multiNode,
    labels: {
      "penstock.dev/capacity": capacity,
      "penstock.dev/gpu": sizeSlug(size.gpu.model),
      "penstock.dev/pool": config.name,
      "penstock.dev/variant": name,
    },
    taints: capacity === "spot" ? [gpuTaint, spotTaints[stack.cloud]] : [gpuTaint],
    price,
    why: whyOf({ stack, group, demand }, { size, capacity, order, price, provisioner, held }),
  };
}

function variantName(pool: string, capacity: CapacityType, size: GpuSize): string {
  return shortened(`${pool}-${capacityWords[capacity]}-${sizeSlug(size.name)}`);
}

function nodeOf(size: GpuSize, osDiskGiB: number): PlannedPool["node"] {
  const free = allocatable(size);
  return {
    vcpus: size.vcpus,
    memoryGiB: size.memoryGiB,
    allocatableCpuMillis: free.cpuMillis,
    allocatableMemoryMiB: free.memoryMiB,
    nvmeGiB: size.nvmeGiB,
    osDiskGiB,
    osDisk: size.tempDiskGiB >= osDiskGiB ? "ephemeral" : "managed",
    networkGbps: size.networkGbps,
    efaInterfaces: size.efaInterfaces,
  };
}

/** The floor is kept on the first variant that is not spot; reserved capacity takes its own part first. */
function floorsOf({ config }: Group, capacities: readonly CapacityType[]): number[] {
  let left = config.minNodes;
  const hasSteady = capacities.some((capacity) => capacity !== "spot");
  return capacities.map((capacity) => {
    if (capacity === "spot" && hasSteady) return 0;
    const isBought = capacity === "reserved" || capacity === "block";
    const here = isBought ? Math.min(left, config.reservation?.nodes ?? 0) : left;
    left -= here;
    return here;
  });
}

function provisionerOf(
  cloud: Cloud,
  { capacity, demand, size }: Pick<Pair, "capacity" | "size"> & { readonly demand: Demand },
): PlannedPool["provisioner"] {
  if (cloud === "azure") return "agent-pool";
  return capacity === "block" || (demand.multiNode && size.efaInterfaces > 0) ? "node-group" : "karpenter";
}

/** Nodes of one replica must be close together: one zone. */
function zonesOf(stack: CloudStack, { config }: Group, demand: Demand): readonly string[] {
  const zones = config.zones ?? stackZones(stack);
  return demand.multiNode ? zones.slice(0, 1) : zones;
}

/** Zones of a stack that names none. */
export function stackZones({ zones, cloud, region, environment }: CloudStack): readonly string[] {
  if (zones !== undefined) return zones;
  if (cloud === "azure") return ["1", "2", "3"];
  const letters = environment === "prod" ? ["a", "b", "c"] : ["a", "b"];
  return letters.map((letter) => `${region}${letter}`);
}

function priceOfVariant(
  region: string,
  { capacity, size }: Pick<Pair, "capacity" | "size">,
  discountPercent: number,
): PlannedPrice {
  const list = priceOf({ size: size.name, region, capacity: capacity === "spot" ? "spot" : "on-demand" });
  if (discountPercent === 0 || list.usdPerHour === null) return list;
  const usd = list.usdPerHour * (1 - discountPercent / 100);
  return {
    ...list,
    usdPerHour: Number(usd.toFixed(4)),
    source: `${list.source}, less ${discountPercent} % by contract`,
  };
}

const orders = ["first", "second", "third", "fourth", "fifth", "sixth"];

function whyOf(
  { stack, group, demand }: Place,
  told: Pick<Pair, "size" | "capacity" | "order"> &
    Pick<PlannedPool, "price" | "provisioner"> & { readonly held: number },
): string[] {
  const { size, capacity, order, price, provisioner, held } = told;
  const reasons = [
    `${size.name}: ${gpusOf(size)}, ${size.vcpus} vCPUs, ${size.memoryGiB} GiB of RAM, ${size.nvmeGiB} GiB of NVMe`,
    `${capacity}, tried ${orders[order] ?? `as number ${order + 1}`}: ${usdPerHour(price.usdPerHour)} as of ${price.asOf}`,
  ];
  if (capacity === "spot") {
    const notice = stack.cloud === "azure" ? "30 s" : "2 min";
    reasons.push(`spot nodes go with ${notice} of notice: only fleets with \`spot: true\` tolerate them`);
  }
  if (demand.multiNode) reasons.push("replicas span nodes: one zone, close together");
  if (provisioner === "node-group")
    reasons.push("a node group: Karpenter makes neither capacity blocks nor EFA groups here");
  if (held > 0) reasons.push(`Karpenter keeps no floor: placeholder pods hold ${count(held, "node")} of it`);
  reasons.push(
    `fleets take ${demand.min} to ${count(demand.max, "node")}; the pool has at most ${group.config.maxNodes}`,
  );
  return [...reasons, ...group.why];
}
