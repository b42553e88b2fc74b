import type { DiscoveredGpu, GpuSample } from "./gpu.ts";

/** Memory that one model holds on each of its GPUs. */
export interface Holding {
  readonly modelId: string;
  /** Whether no other model may be on the same GPUs. */
  readonly exclusive: boolean;
  bytes: number;
}

/** A GPU with what is on it. */
export interface Slot {
  readonly gpu: DiscoveredGpu;
  readonly holdings: Set<Holding>;
  /** Bytes that are taken by others than this agent's models, the driver among them. */
  foreignBytes: number;
  sample: GpuSample;
  /** The most that was reserved at once since the last sample. */
  peakBytes: number;
}

/** A GPU with nothing of ours on it: all that is used is used by others. */
export function emptySlot(gpu: DiscoveredGpu): Slot {
  return { gpu, holdings: new Set(), foreignBytes: gpu.memoryUsedBytes, sample: gpu, peakBytes: 0 };
}

/** Bytes of a GPU that the models of this agent hold. */
export function reservedBytes(slot: Slot): number {
  return [...slot.holdings].reduce((sum, { bytes }) => sum + bytes, 0);
}

/** Bytes of a GPU that nobody has. */
export function freeBytes(slot: Slot): number {
  return Math.max(0, slot.gpu.memoryTotalBytes - reservedBytes(slot) - slot.foreignBytes);
}

/** Notes what was just added to a slot's holdings, or to one of them. */
export function notePeak(slot: Slot): void {
  slot.peakBytes = Math.max(slot.peakBytes, reservedBytes(slot));
}

/**
 * Takes in what the driver says now. What others use is only known to lie between all that is used (our engines may not
 * have taken theirs yet) and what is used beyond our reservations. The estimate moves only as far as that forces it to,
 * so that an engine that still loads never makes memory of others look free.
 */
export function takeSample(slot: Slot, sample: GpuSample): void {
  const beyondOurs = Math.max(0, sample.memoryUsedBytes - slot.peakBytes);
  slot.foreignBytes = Math.min(sample.memoryUsedBytes, Math.max(beyondOurs, slot.foreignBytes));
  slot.sample = sample;
  slot.peakBytes = reservedBytes(slot);
}
