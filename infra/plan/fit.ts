import type { GpuSize } from "../catalog/sizes.ts";
import type { StackEngine } from "../stack/engines.ts";
import type { ModelShape } from "../stack/shape.ts";
import { engineMemory, overheadGiB, type EngineMemory } from "./engine-memory.ts";
import { kvGiBOfRequest, kvShare, weightsOf, weightsPerGpuGiB, type Spread } from "./model-memory.ts";
import { gib } from "./text.ts";

/** A model on GPUs: what is asked. */
export interface FitQuestion {
  readonly engine: StackEngine;
  readonly shape: ModelShape;
  readonly spread: Spread;
  readonly size: GpuSize;
  readonly contextTokens: number;
  /** Requests of that length at once. */
  readonly concurrency: number;
  /** Models that share each GPU. */
  readonly residents: number;
}

/** The memory of one GPU of a replica. */
export interface Fit {
  readonly fits: boolean;
  readonly weightsGiB: number;
  readonly overheadGiB: number;
  /** What the engine may take, weights and all. */
  readonly usableGiB: number;
  /** What is left for the KV cache; below 0 where not even the weights fit. */
  readonly kvRoomGiB: number;
  readonly kvNeedGiB: number;
  /** Requests whose KV cache fits. */
  readonly concurrency: number;
  /** `1 x H100: 15.0 GiB of weights + ... = 50 of 72 GiB`. */
  readonly arithmetic: string;
}

/** The memory arithmetic of one model on one kind of GPU. */
export function fitOf(question: FitQuestion): Fit {
  const { engine, shape, spread, size, contextTokens } = question;
  const rules = engineMemory(engine, shape);
  const weights = weightsOf(shape, rules.quantized);
  const weightsGiB = weightsPerGpuGiB(shape, weights, spread);
  const overhead = overheadGiB({ engine, shape, spread, gpuMemoryGiB: size.gpu.memoryGiB, contextTokens });
  const usableGiB = usable(question, rules);
  const kvRoomGiB = (usableGiB - weightsGiB - overhead) * rules.kvFraction;
  const requestGiB = kvGiBOfRequest(shape, contextTokens, rules.kvWidth) * kvShare(shape, spread);
  const kvNeedGiB = requestGiB * wanted(question);
  const loadGiB = rules.loadsWhole ? weightsPerGpuGiB(shape, weightsOf(shape, null), spread) + overhead : 0;
  const numbers = {
    weightsGiB,
    overheadGiB: overhead,
    usableGiB,
    kvRoomGiB,
    kvNeedGiB,
    concurrency: Math.max(0, Math.floor(kvRoomGiB / requestGiB + 1e-9)),
  };
  return {
    ...numbers,
    fits: kvRoomGiB > 0 && kvNeedGiB <= kvRoomGiB && loadGiB <= usableGiB,
    arithmetic: arithmetic(question, { ...numbers, loadGiB }),
  };
}

/** An embedding model keeps no cache between tokens: one request at a time goes through it. */
function wanted({ engine, concurrency }: FitQuestion): number {
  if (engine.kind === "embedded" || engine.task === "embed") return 1;
  return engine.kind === "llamacpp" ? engine.parallelSequences : concurrency;
}

/** llama.cpp takes what it needs, so models share the GPU evenly; others take their part of it each. */
function usable({ engine, size, residents }: FitQuestion, { utilization }: EngineMemory): number {
  const share = engine.kind === "llamacpp" ? residents : 1;
  return (size.gpu.memoryGiB * utilization) / share;
}

function arithmetic(
  question: FitQuestion,
  fit: Pick<Fit, "weightsGiB" | "overheadGiB" | "usableGiB" | "kvNeedGiB"> & { loadGiB: number },
): string {
  const { spread, size, contextTokens } = question;
  const gpus = spread.tensorParallel * spread.pipelineParallel;
  if (fit.loadGiB > fit.usableGiB) {
    return `${gpus} x ${size.gpu.model}: ${gib(fit.loadGiB)} on each GPU before the weights are quantised, of ${gib(fit.usableGiB)} usable`;
  }
  const sum = fit.weightsGiB + fit.overheadGiB + fit.kvNeedGiB;
  return (
    `${gpus} x ${size.gpu.model}: on each GPU ${gib(fit.weightsGiB)} of weights + ${gib(fit.overheadGiB)} of buffers + ` +
    `${gib(fit.kvNeedGiB)} of KV cache (${wanted(question)} x ${contextTokens} tokens) = ${gib(sum)} of ${gib(fit.usableGiB)} usable`
  );
}
