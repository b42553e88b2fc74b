import { createHash } from "node:crypto";
import { isSold, knownRegions, priceOf, regionsSelling } from "../catalog/prices.ts";
import { findSize, gpuSizes, type GpuSize } from "../catalog/sizes.ts";
import type { CloudStack, StackPool } from "../stack/schema.ts";
import { count } from "./text.ts";

/** A pool of the stack, or one that the planner made, with its sizes looked up. */
export interface Group {
  readonly config: StackPool;
  readonly sizes: readonly [GpuSize, ...GpuSize[]];
  /** Where the stack names it. */
  readonly path: string;
  readonly why: readonly string[];
}

/** Looks up a pool's sizes; every problem goes to `report`, and null comes back. */
export function groupOf(stack: CloudStack, at: number, report: (problem: string) => void): Group | null {
  const config = stack.pools[at];
  if (config === undefined) return null;
  const path = `pools[${at}]`;
  const sizes: GpuSize[] = [];
  for (const [index, name] of config.sizes.entries()) {
    const size = findSize(stack.cloud, name);
    const problem = sizeProblem(stack, config, { name, size });
    if (problem !== null) report(`${path}.sizes[${index}]: ${problem}`);
    else if (size !== undefined) sizes.push(size);
  }
  const [first, ...others] = sizes;
  if (first === undefined || sizes.length < config.sizes.length) return null;
  return { config, sizes: [first, ...others], path, why: [] };
}

interface NamedSize {
  readonly name: string;
  readonly size: GpuSize | undefined;
}

function sizeProblem(stack: CloudStack, pool: StackPool, { name, size }: NamedSize): string | null {
  const { cloud, region } = stack;
  if (size === undefined) {
    return `no size named \`${name}\` on ${cloud}; in ${region} there are ${usableSizes(stack).join(", ")}`;
  }
  if (size.unusable !== undefined)
    return `${name} cannot be used: ${size.unusable}; in its place use one of ${usableSizes(stack).join(", ")}`;
  if (isSold(cloud, name, region) !== "no") return null;
  const isBought = pool.capacity.every(
    (capacity) => capacity === "block" || capacity === "reserved" || hasSpot(name, region),
  );
  if (isBought) return null;
  const elsewhere = regionsSelling(name);
  const where = elsewhere.length === 0 ? "it is sold as reserved capacity alone" : `it is in ${elsewhere.join(", ")}`;
  return `${name} is not sold in ${region}; ${where}. In ${region} there are ${usableSizes(stack).join(", ")}`;
}

function hasSpot(size: string, region: string): boolean {
  return priceOf({ size, region, capacity: "spot" }).usdPerHour !== null;
}

/** Sizes that a stack may name where it is. */
export function usableSizes({ cloud, region }: CloudStack): string[] {
  return gpuSizes
    .filter((size) => size.cloud === cloud && size.unusable === undefined && isSold(cloud, size.name, region) !== "no")
    .map(({ name }) => name);
}

/** Why a region cannot be used; null where it can. */
export function regionProblem({ cloud, region }: CloudStack): string | null {
  if (cloud === "aws") {
    return /^(us|eu|ap|sa|ca|me|af|il|mx)-[a-z]+-\d$/.test(region)
      ? null
      : `region: \`${region}\` is no region of AWS; write one such as us-east-1 or eu-central-1`;
  }
  const regions = knownRegions(cloud) ?? [];
  return regions.includes(region)
    ? null
    : `region: no region named \`${region}\` has GPU sizes; there are ${regions.join(", ")}`;
}

/** Names of Kubernetes objects and labels that come from pools have at most this many characters. */
const nameLimit = 40;

/** A name that is as readable as fits, and otherwise ends in a hash of the whole. */
export function shortened(name: string, limit = nameLimit): string {
  if (name.length <= limit) return name;
  const hash = createHash("sha256").update(name).digest("hex").slice(0, 6);
  return `${name.slice(0, limit - 7).replace(/-+$/, "")}-${hash}`;
}

/** `Standard_ND96isr_H100_v5` as `nd96isr-h100-v5`. */
export function sizeSlug(size: string): string {
  return size
    .replace(/^Standard_/, "")
    .toLowerCase()
    .replaceAll(/[^a-z0-9]+/g, "-");
}

/** The pool that the planner makes for a fleet with `gpu: auto`. */
export function autoPool(
  fleet: { readonly name: string; readonly spot: boolean },
  size: GpuSize,
  nodes: { readonly max: number },
): StackPool {
  return {
    name: shortened(`auto-${fleet.name}`, 20),
    formerNames: [],
    sizes: [size.name],
    capacity: fleet.spot ? ["spot", "on-demand"] : ["on-demand"],
    minNodes: 0,
    maxNodes: nodes.max,
    warmSpares: 0,
    osDiskGiB: 256,
  };
}

/** Nodes for so many replicas. */
export function nodesFor(replicas: number, replicasPerNode: number): number {
  return Math.ceil(replicas / replicasPerNode);
}

/** `2 x H100 80GB SXM5 of 80 GiB`. */
export function gpusOf(size: GpuSize): string {
  const model = size.gpu.model.replace(/^NVIDIA /, "");
  return `${count(size.gpu.count, "GPU")} ${model} of ${size.gpu.memoryGiB} GiB${size.nvlink ? " over NVLink" : ""}`;
}
