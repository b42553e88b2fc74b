import { PenstockError } from "../../contracts/errors.ts";
import type { DiscoveredGpu, GpuSample } from "./gpu.ts";
import { bestSet, type Place } from "./placement.ts";
import { growthWords, refusalWords } from "./refusal.ts";
import { emptySlot, freeBytes, notePeak, reservedBytes, takeSample, type Holding, type Slot } from "./slot.ts";

/** What a model asks of the GPUs of this node. */
export interface GpuRequest {
  readonly modelId: string;
  /** Tensor-parallel size. */
  readonly gpuCount: number;
  readonly memoryBytesPerGpu: number;
  /** Whether no other model may be on the same GPUs. */
  readonly exclusive?: boolean;
  /** Whether a set without NVLink between every pair is refused. Otherwise a connected one is only preferred. */
  readonly needsNvLink: boolean;
}

/** GPU memory that is set aside until it is disposed of, which may be done more than once. */
export interface GpuReservation extends Disposable {
  readonly modelId: string;
  /**
   * `nvidia-smi` indices, ascending. Engines get these and not UUIDs, with which vLLM does not start
   * (github.com/vllm-project/vllm issues 13815 and 41848).
   */
  readonly indices: readonly number[];
  readonly memoryBytesPerGpu: number;
  /**
   * Changes the bytes on each GPU: fewer once an engine sleeps, more before it wakes. Throws `insufficient_gpu_memory`
   * when the rest was given to others meanwhile; the reservation is then as it was.
   */
  resize(memoryBytesPerGpu: number): void;
}

/** A line of the heartbeat. */
export interface GpuReport {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly memoryTotalBytes: number;
  /** As of the last sample, by whomever. */
  readonly memoryUsedBytes: number;
  /** By models of this agent. */
  readonly reservedBytes: number;
  /** 0 to 100 as of the last sample; null when the driver does not say. */
  readonly utilisationPercent: number | null;
  readonly nvlinkPeers: readonly number[];
}

/**
 * Hands out the memory of this node's GPUs. Small models share a GPU; a tensor-parallel set gets GPUs with NVLinks
 * where there are any. The same requests in the same order get the same GPUs.
 */
export class GpuSlots {
  readonly #slots: readonly Slot[];

  constructor(gpus: readonly DiscoveredGpu[]) {
    this.#slots = gpus.map(emptySlot);
  }

  /** Sets memory aside. Throws `insufficient_gpu_memory` with the whole arithmetic and what to do. */
  reserve(request: GpuRequest): GpuReservation {
    checkWhole("gpuCount", request.gpuCount, 1);
    checkWhole("memoryBytesPerGpu", request.memoryBytesPerGpu, 1);
    const { modelId, exclusive = false, memoryBytesPerGpu } = request;
    const indices = bestSet(places(this.#slots, request), request);
    if (indices === null) throw this.#refusal(request);
    const slots = this.#slots.filter(({ gpu }) => indices.includes(gpu.index));
    const holding: Holding = { modelId, exclusive, bytes: memoryBytesPerGpu };
    for (const slot of slots) {
      slot.holdings.add(holding);
      notePeak(slot);
    }
    return {
      modelId,
      indices,
      get memoryBytesPerGpu() {
        return holding.bytes;
      },
      resize: (bytes) => resize(slots, holding, bytes),
      [Symbol.dispose]: () => {
        for (const slot of slots) slot.holdings.delete(holding);
      },
    };
  }

  /** The heartbeat's lines, from memory: no tool is run. */
  snapshot(): GpuReport[] {
    return this.#slots.map((slot) => ({
      index: slot.gpu.index,
      uuid: slot.gpu.uuid,
      name: slot.gpu.name,
      memoryTotalBytes: slot.gpu.memoryTotalBytes,
      memoryUsedBytes: slot.sample.memoryUsedBytes,
      reservedBytes: reservedBytes(slot),
      utilisationPercent: slot.sample.utilisationPercent,
      nvlinkPeers: slot.gpu.nvlinkPeers,
    }));
  }

  /** Takes in what the driver says now. Answers the indices of the GPUs that it says nothing of. */
  update(samples: readonly GpuSample[]): number[] {
    const lost: number[] = [];
    for (const slot of this.#slots) {
      const sample = samples.find(({ uuid }) => uuid === slot.gpu.uuid);
      if (sample === undefined) lost.push(slot.gpu.index);
      else takeSample(slot, sample);
    }
    return lost;
  }

  #refusal(request: GpuRequest): PenstockError {
    const whenEmpty = this.#slots.map((slot) => ({ ...slot, holdings: new Set<Holding>() }));
    const words = refusalWords(request, this.#slots, {
      fitsWhenEmpty: bestSet(places(whenEmpty, request), request) !== null,
      fitsWithoutNvLink: bestSet(places(this.#slots, request), { ...request, needsNvLink: false }),
    });
    return new PenstockError("insufficient_gpu_memory", words);
  }
}

function places(slots: readonly Slot[], request: GpuRequest): Place[] {
  return slots.map((slot) => ({
    index: slot.gpu.index,
    peers: new Set(slot.gpu.nvlinkPeers),
    freeBytes: mayHost(slot, request) ? freeBytes(slot) : 0,
    idle: slot.holdings.size === 0,
  }));
}

function mayHost({ gpu, holdings }: Slot, request: GpuRequest): boolean {
  if (gpu.mig) return false;
  return holdings.size === 0 || (request.exclusive !== true && [...holdings].every(({ exclusive }) => !exclusive));
}

function resize(slots: readonly Slot[], holding: Holding, bytes: number): void {
  checkWhole("memoryBytesPerGpu", bytes, 0);
  if (slots.some(({ holdings }) => !holdings.has(holding))) throw new Error("This reservation was given back.");
  const short = slots.filter((slot) => freeBytes(slot) + holding.bytes < bytes);
  if (short.length > 0) {
    throw new PenstockError("insufficient_gpu_memory", growthWords(holding.modelId, bytes, short));
  }
  holding.bytes = bytes;
  for (const slot of slots) notePeak(slot);
}

function checkWhole(name: string, value: number, least: number): void {
  if (!Number.isSafeInteger(value) || value < least)
    throw new RangeError(`${name} is a whole number from ${least} on.`);
}
