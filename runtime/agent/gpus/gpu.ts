/** One GPU as its driver reports it. */
export interface Gpu {
  /** `nvidia-smi`'s number, which follows the PCI bus. CUDA agrees only under `CUDA_DEVICE_ORDER=PCI_BUS_ID`. */
  readonly index: number;
  /** `GPU-...`: stays the same when a restart changes the index. */
  readonly uuid: string;
  readonly name: string;
  /** 0 when the driver does not say, as on chips that share the memory of their CPU. */
  readonly memoryTotalBytes: number;
  /** Such as `9.0`; null when the driver does not say. */
  readonly computeCapability: string | null;
  readonly driverVersion: string | null;
  /** Cut into MIG slices: a process cannot have the GPU as a whole then. */
  readonly mig: boolean;
}

/** What changes from second to second. */
export interface GpuSample {
  readonly uuid: string;
  /**
   * Total less free, so that it counts what the driver keeps for itself (about 0.5 GiB), which `memory.used` of drivers
   * since 510 leaves out.
   */
  readonly memoryUsedBytes: number;
  /** 0 to 100; null when the driver does not say. */
  readonly utilisationPercent: number | null;
}

/** A GPU of this node with its first sample and its NVLinks. */
export interface DiscoveredGpu extends Gpu, GpuSample {
  /** Indices of the GPUs that are reached over NVLink, in ascending order. */
  readonly nvlinkPeers: readonly number[];
}

/**
 * GPUs of the largest NVIDIA node (HGX-2, p2.16xlarge). The search for the best set of GPUs looks at every set, which
 * are 12,870 at most with 16.
 */
export const maxGpus = 16;
