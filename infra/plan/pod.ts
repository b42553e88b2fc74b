import type { GpuSize } from "../catalog/sizes.ts";
import { engineMemory } from "./engine-memory.ts";
import { weightsOf } from "./model-memory.ts";
import type { FleetNeed } from "./need.ts";
import type { Layout } from "./spread.ts";
import { gib } from "./text.ts";

/** What a pod asks for beside GPUs. */
export interface PodShare {
  readonly cpuMillis: number;
  readonly memoryGiB: number;
  readonly sharedMemoryGiB: number;
  /** Its part of the node's cache folder. */
  readonly cacheGiB: number;
}

/** Agents of the node: device plugin, exporters, storage and network drivers. */
const daemons = { cpuMillis: 500, memoryMiB: 1536 };

/** On AWS images and logs share the NVMe with the cache (RAID 0 under /mnt/k8s-disks). */
const awsImagesGiB = 60;

/** Part of the disk that may be filled. */
const diskShare = 0.9;

/** RAM of the agent and of an engine's processes, beside weights. */
const processGiB = 6;

/** CPU and memory that Kubernetes leaves for pods. */
export function allocatable(size: GpuSize): { readonly cpuMillis: number; readonly memoryMiB: number } {
  if (size.allocatable !== null) return size.allocatable;
  // AKS keeps 140 millis on 4 cores, 180 on 8, 740 on 64; of memory 20 MiB a pod, 50 and the eviction threshold.
  return {
    cpuMillis: Math.floor(size.vcpus * 990 - 100),
    memoryMiB: Math.floor(size.memoryGiB * 1024 * 0.98 - 2400),
  };
}

/** GiB of a node's NVMe that models may take. */
export function nodeCacheGiB(size: GpuSize): number {
  const free = size.nvmeGiB * diskShare - (size.cloud === "aws" ? awsImagesGiB : 0);
  return Math.max(0, Math.floor(free));
}

/** A replica's share of a node: by its GPUs. Or the reason why its models do not fit on the node's disk or in its RAM. */
export function podOn(need: FleetNeed, size: GpuSize, layout: Layout): PodShare | { readonly reason: string } {
  const share = layout.gpusPerNode / size.gpu.count;
  const free = allocatable(size);
  const cpuMillis = Math.floor((free.cpuMillis - daemons.cpuMillis) * share);
  const memoryGiB = Math.floor(((free.memoryMiB - daemons.memoryMiB) * share) / 1024);
  const cacheGiB = Math.floor(nodeCacheGiB(size) * share);
  const reason = diskReason(need, size, cacheGiB) ?? memoryReason(need, size, { layout, memoryGiB });
  if (reason !== null) return { reason };
  const wantedGiB = layout.gpusPerNode > 1 ? 16 : 4;
  return {
    cpuMillis,
    memoryGiB,
    cacheGiB,
    sharedMemoryGiB: Math.max(1, Math.min(wantedGiB, Math.floor(memoryGiB / 4))),
  };
}

function diskReason(need: FleetNeed, size: GpuSize, cacheGiB: number): string | null {
  if (size.nvmeGiB === 0) return `${size.name} has no local NVMe for the model cache; use a size that has`;
  const largest = largestModel(need);
  if (largest.fileGiB <= cacheGiB) return null;
  return (
    `the files of \`${largest.id}\` are ${gib(largest.fileGiB)}, and a replica's share of the NVMe of ${size.name} is ` +
    `${gib(cacheGiB)}; use a size with a larger disk`
  );
}

/** Engines that sleep keep their weights in RAM. */
function memoryReason(
  need: FleetNeed,
  size: GpuSize,
  { layout, memoryGiB }: { readonly layout: Layout; readonly memoryGiB: number },
): string | null {
  const { engine, config } = need;
  const sleeps =
    engine.kind === "vllm" && engine.sleepLevel === 1 && typeof config.idle?.sleep_after_seconds === "number";
  const needGiB = processGiB + (sleeps ? largestModel(need).loadedGiB / layout.nodes : 0);
  if (needGiB <= memoryGiB) return null;
  const remedy = sleeps ? "set the engine's sleepLevel to 2, or use" : "use";
  return `a replica needs ${gib(needGiB)} of RAM, and its share of ${size.name} is ${gib(memoryGiB)}; ${remedy} a size with more`;
}

function largestModel(need: FleetNeed): { readonly id: string; readonly fileGiB: number; readonly loadedGiB: number } {
  const models = need.models.map(({ config: { id }, shape }) => {
    const weights = weightsOf(shape, engineMemory(need.engine, shape).quantized);
    return { id, fileGiB: weights.fileGiB, loadedGiB: weights.gib };
  });
  return models.reduce((largest, model) => (model.fileGiB > largest.fileGiB ? model : largest));
}
