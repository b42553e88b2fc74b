import { z } from "zod";
import type { Cloud } from "../stack/schema.ts";
import { checked, day } from "./read.ts";
import content from "./sizes.json" with { type: "json" };

const gpuSize = z.strictObject({
  /** The cloud's name of the size. */
  name: z.string().min(1),
  cloud: z.enum(["azure", "aws"]),
  gpu: z.strictObject({
    model: z.string().min(1),
    count: z.int().min(1),
    /** Of each GPU. AWS: as EC2 reports it. Azure: as the size page prints it. */
    memoryGiB: z.number().positive(),
    computeCapability: z.string().regex(/^\d+\.\d$/),
    architecture: z.string().min(1),
  }),
  /** All GPUs of a node reach each other over NVLink. */
  nvlink: z.boolean(),
  vcpus: z.int().min(1),
  memoryGiB: z.number().min(0),
  /** What Kubernetes leaves for pods, as Karpenter computes it; null where nobody has. */
  allocatable: z.strictObject({ cpuMillis: z.int().min(1), memoryMiB: z.int().min(1) }).nullable(),
  /** Local NVMe, all disks together. */
  nvmeGiB: z.int().min(0),
  /** Azure's temporary disk, which an ephemeral system disk may take. */
  tempDiskGiB: z.number().min(0),
  networkGbps: z.number().positive().nullable(),
  efaInterfaces: z.int().min(0),
  infinibandGbps: z.number().min(0),
  /** Why Penstock cannot use it. */
  unusable: z.string().min(1).optional(),
  /** Named differently from place to place still: never chosen for `gpu: auto`. */
  preview: z.boolean().default(false),
});

/** A node size with GPUs. */
export type GpuSize = z.infer<typeof gpuSize>;

const file = z.strictObject({
  source: z.string(),
  asOf: day,
  sizes: z
    .array(gpuSize)
    .refine((sizes) => new Set(sizes.map(({ name }) => name)).size === sizes.length, "a size is listed twice"),
});

/** Every size that is known, by name. */
export const gpuSizes: readonly GpuSize[] = checked("sizes.json", file, content).sizes;

/** The size of that name; undefined when none is known. */
export function findSize(cloud: Cloud, name: string): GpuSize | undefined {
  return gpuSizes.find((size) => size.cloud === cloud && size.name === name);
}

/** `9.0` as 90, so that versions compare as numbers. */
export function capabilityOf(size: GpuSize): number {
  return Math.round(Number(size.gpu.computeCapability) * 10);
}
