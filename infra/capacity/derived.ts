import type { PlannedFleet, PlannedModel } from "../plan/plan.ts";
import type { ModelShape, WeightType } from "../stack/shape.ts";
import { calibrated, type EngineConstants, type EngineModel } from "./engine-model.ts";
import { gpuSpeeds } from "./gpus.ts";

/** An engine model and where its constants are from. */
export interface KnownEngine {
  readonly model: EngineModel;
  readonly source: string;
  readonly isDerived: boolean;
}

/** GPUs of a replica. */
export interface ReplicaGpus {
  readonly gpu: string;
  readonly count: number;
  readonly nvlink: boolean;
}

/**
 * Parts of the data sheet that engines reach, fitted to the calibrated rows of `engine-model.ts`, all of which the rule
 * gives back: w0 within 10 %, k and p1 within 25 %, p2 and b within a factor of 2.
 */
const reached = {
  /** Of the memory's speed, when weights are read: Hopper and later, and before. */
  weights: { recent: 0.85, older: 0.7 },
  /** The same for the KV cache. */
  kv: { recent: 0.95, older: 0.75 },
  /** Of the tensor units, in the matrices of a prefill and in its attention. */
  matrices: 0.88,
  attention: 0.6,
  /** What one more sequence costs of a token's prefill. */
  sequence: 0.5,
} as const;

/** An all-reduce, of which each layer has two: ms at its least, and GB/s for what it carries. PCIe: no measurement, a tenth. */
const allReduce = { ms: 0.018, nvlinkGBps: 200, pcieGBps: 20 } as const;

/** Of a mixture of experts, a batch reads so many times what one token uses, and all of it at most. */
const expertsRead = 8;

/** vLLM's own limits where the stack sets none: sequences at once, and new tokens of a step. */
const defaults = { sequences: 256, chunkTokens: 8_192 } as const;

/** Weight types that GPUs with FP8 units compute with in 8 bits. */
const eightBit: ReadonlySet<WeightType> = new Set(["fp8", "int8", "fp4", "mxfp4"]);

/** The engine of a fleet with one of its models; null where the catalogue of GPUs has no speed of that GPU. */
export function engineFor(fleet: PlannedFleet, model: PlannedModel, gpus: ReplicaGpus): KnownEngine | null {
  const kvGiB = fleet.memory.kvCacheGiB * fleet.gpusPerReplica;
  const limits = {
    kvTokens: Math.max(1, Math.floor((kvGiB * 2 ** 30) / Math.max(1, model.kvBytesPerToken))),
    ...limitsOf(fleet),
  };
  const measured = measuredFor(model, gpus);
  if (measured !== undefined) {
    const source = `${model.id} on ${gpus.count} x ${gpus.gpu}: composed from measured kernels (aiconfigurator)`;
    return { model: { ...measured, ...limits }, source, isDerived: false };
  }
  const constants = derivedConstants(model, gpus);
  if (constants === null) return null;
  const source =
    `${model.id} on ${gpus.count} x ${gpus.gpu}: derived from memory speed and TFLOP/s of the data sheet, with the shares ` +
    "that fit the measured pairs";
  return { model: { ...constants, ...limits }, source, isDerived: true };
}

function limitsOf({ engine, concurrency }: PlannedFleet): Pick<EngineModel, "maxSequences" | "chunkTokens"> {
  if (engine.kind === "vllm") {
    return {
      maxSequences: engine.maxNumSeqs ?? defaults.sequences,
      chunkTokens: engine.maxNumBatchedTokens ?? defaults.chunkTokens,
    };
  }
  if (engine.kind === "trtllm") {
    return {
      maxSequences: engine.maxBatchSize ?? defaults.sequences,
      chunkTokens: engine.maxNumTokens ?? defaults.chunkTokens,
    };
  }
  if (engine.kind === "triton") return { maxSequences: defaults.sequences, chunkTokens: defaults.chunkTokens };
  return { maxSequences: concurrency, chunkTokens: 2_048 };
}

/** Llama's two sizes in BF16, also under the names of models with the very same layers. */
function measuredFor({ shape, kvBytesPerToken }: PlannedModel, gpus: ReplicaGpus): EngineConstants | undefined {
  if (shape.weights !== "bf16" && shape.weights !== "fp16") return undefined;
  const is8B = shape.layers === 32 && shape.hiddenSize === 4_096 && kvBytesPerToken === 131_072;
  const is70B = shape.layers === 80 && shape.hiddenSize === 8_192 && kvBytesPerToken === 327_680;
  const size = shape.parametersB;
  const rows = is8B && size > 6.5 && size < 9 ? calibrated["llama-3.1-8b"] : [];
  const large = is70B && size > 65 && size < 75 ? calibrated["llama-3.1-70b"] : [];
  const row = [...rows, ...large].find(({ gpu, gpus: count }) => gpu === gpus.gpu && count === gpus.count);
  if (row === undefined) return undefined;
  const { w0, b, k, p1, p2 } = row;
  return { w0, b, k, p1, p2 };
}

/** The rule for every other pair. */
export function derivedConstants(
  {
    shape,
    weightsGiB,
    kvBytesPerToken,
  }: Pick<PlannedModel, "weightsGiB" | "kvBytesPerToken"> & { readonly shape: ModelShape },
  { gpu, count, nvlink }: ReplicaGpus,
): EngineConstants | null {
  const speed = gpuSpeeds[gpu];
  if (speed === undefined) return null;
  const age = speed.isRecent ? "recent" : "older";
  const activeB = shape.activeParametersB ?? shape.parametersB;
  const bytesRead = weightsGiB * 2 ** 30 * Math.min(1, (expertsRead * activeB) / shape.parametersB);
  const bytesPerMs = speed.memoryGBps * 1e6 * count;
  const tflops = eightBit.has(shape.weights) ? (speed.fp8Tflops ?? speed.halfTflops) : speed.halfTflops;
  const perMs = (teraflops: number): number => teraflops * 1e9 * count;
  const reductions = count > 1 ? 2 * shape.layers : 0;
  const linkBytesPerMs = (nvlink ? allReduce.nvlinkGBps : allReduce.pcieGBps) * 1e6;
  const carriedMs = (reductions * shape.hiddenSize * 2 * 2 * ((count - 1) / count)) / linkBytesPerMs;
  const p1 = (2 * activeB * 1e9) / (perMs(tflops) * reached.matrices) + carriedMs;
  const attention = 2 * shape.layers * shape.attentionHeads * shape.headSize;
  return {
    w0: bytesRead / (bytesPerMs * reached.weights[age]) + reductions * allReduce.ms,
    b: p1 * reached.sequence,
    k: kvBytesPerToken / (bytesPerMs * reached.kv[age]),
    p1,
    // Attention is computed in 16 bits whatever the weights are.
    p2: attention / (perMs(speed.halfTflops) * reached.attention),
  };
}
