import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import type { StackEngine } from "../stack/engines.ts";
import type { ModelShape, WeightType } from "../stack/shape.ts";
import type { Spread } from "./model-memory.ts";

/** What an engine does with the memory of a GPU. */
export interface EngineMemory {
  /** Part of the GPU that weights, buffers and KV cache may take together. */
  readonly utilization: number;
  /** Part of what weights and buffers leave that the KV cache takes. */
  readonly kvFraction: number;
  /** Bytes of a number in the KV cache. */
  readonly kvWidth: number;
  /** How the engine quantises weights while it loads them; null: it leaves them as they are. */
  readonly quantized: WeightType | null;
  /** Loads the weights whole before it quantises them. */
  readonly loadsWhole: boolean;
}

/** Part of a GPU that an engine without an option of its own leaves to the driver and to fragmentation. */
const wholeGpu = 0.95;

/** The memory rules of an engine that serves a model of that shape. */
export function engineMemory(engine: StackEngine, shape: ModelShape): EngineMemory {
  const kvWidth = shape.weights === "fp32" ? 4 : 2;
  const plain = { utilization: wholeGpu, kvFraction: 1, kvWidth, quantized: null, loadsWhole: false };
  if (engine.kind === "embedded") return plain;
  if (engine.kind === "llamacpp") return { ...plain, kvWidth: llamacppKvWidth[engine.kvCacheType] };
  if (engine.kind === "trtllm") {
    const width = engine.kvCacheDtype === "fp8" ? 1 : kvWidth;
    return { ...plain, kvFraction: engine.kvCacheFreeMemoryFraction, kvWidth: width };
  }
  if (engine.kind === "triton") {
    return engine.backend === "vllm"
      ? { ...plain, utilization: engine.gpuMemoryUtilization }
      : { ...plain, kvFraction: tritonKvFraction };
  }
  return {
    utilization: engine.gpuMemoryUtilization,
    kvFraction: 1,
    kvWidth: engine.kvCacheDtype === "auto" ? kvWidth : 1,
    ...vllmQuantization(engine.quantization, shape),
  };
}

/** What TensorRT-LLM takes for its KV cache of the memory that is free, unless told otherwise. */
const tritonKvFraction = 0.9;

/** 8- and 4-bit blocks carry a scale for 32 numbers. */
const llamacppKvWidth = { f16: 2, q8_0: 34 / 32, q4_0: 18 / 32 } as const;

type Quantization = NonNullable<Extract<EngineSpec, { kind: "vllm" }>["quantization"]>;

/** What each makes of weights of 16 bits and more. AWQ and GPTQ read what was quantised beforehand. */
const vllmQuantized = {
  fp8: "fp8",
  bitsandbytes: "int4",
  awq: "int4",
  awq_marlin: "int4",
  gptq: "int4",
  gptq_marlin: "int4",
  modelopt: null,
  "compressed-tensors": null,
} as const satisfies Record<Quantization, WeightType | null>;

function vllmQuantization(
  quantization: Quantization | undefined,
  shape: ModelShape,
): Pick<EngineMemory, "quantized" | "loadsWhole"> {
  const isWide = ["fp32", "bf16", "fp16"].includes(shape.weights);
  if (quantization === undefined || !isWide) return { quantized: null, loadsWhole: false };
  return { quantized: vllmQuantized[quantization], loadsWhole: quantization === "fp8" };
}

/** CUDA context, NCCL and CUDA graphs on each GPU: 1.4 GiB stayed on an H100 where vLLM slept, with a margin. */
const fixedGiB = 2;
/** The encoder of images beside the language model: its activations for a batch of images. */
const visionGiB = 2;
/** llama.cpp's context and compute buffers. */
const llamacppGiB = 1;

/** What is needed of the GPUs to tell an engine's overhead. */
export interface OverheadQuestion {
  readonly engine: StackEngine;
  readonly shape: ModelShape;
  readonly spread: Spread;
  readonly gpuMemoryGiB: number;
  readonly contextTokens: number;
}

/**
 * GiB on each GPU beside weights and KV cache: context, graphs, activations of a batch, adapters, a draft model.
 * With it, KV caches of Llama 3.1 8B and 70B on H100 come out within 1 GiB of what vLLM 0.24 reports (442 k tokens on one
 * GPU, 472 to 484 k on four, 1.38 M on eight).
 */
export function overheadGiB(question: OverheadQuestion): number {
  const { engine, shape, spread } = question;
  const parts = shape.vision ? visionGiB : 0;
  if (engine.kind === "llamacpp" || engine.kind === "embedded") return parts + llamacppGiB;
  const tokens = batchTokens(question);
  // Numbers of 16 bits: hidden states on every GPU, and what is between the two halves of a layer, divided.
  const activations = (tokens * shape.hiddenSize * 2 * (4 + 8 / spread.tensorParallel)) / 2 ** 30;
  return parts + fixedGiB + activations + adaptersGiB(question) + draftGiB(question);
}

/** vLLM's own default: 8192 tokens a batch on GPUs of 70 GiB and more, else 2048 (EngineArgs). */
function batchTokens({ engine, gpuMemoryGiB, contextTokens }: OverheadQuestion): number {
  const byDefault = gpuMemoryGiB >= 70 ? 8192 : 2048;
  if (engine.kind === "trtllm") return engine.maxNumTokens ?? 8192;
  if (engine.kind !== "vllm") return byDefault;
  return engine.maxNumBatchedTokens ?? (engine.chunkedPrefill ? byDefault : Math.max(byDefault, contextTokens));
}

/** Slots for adapters of the largest rank on all seven matrices of a layer: about 20 x hidden x rank numbers. */
function adaptersGiB({ engine, shape, spread }: OverheadQuestion): number {
  if (engine.kind !== "vllm" || engine.lora === undefined) return 0;
  const { maxLoras, maxRank } = engine.lora;
  const bytes = maxLoras * maxRank * shape.layers * 20 * shape.hiddenSize * 2;
  return bytes / spread.tensorParallel / 2 ** 30;
}

/** A draft model's size is not in the stack: a twentieth of the model's is what drafts commonly have. */
function draftGiB({ engine, shape, spread }: OverheadQuestion): number {
  if (engine.kind !== "vllm" || engine.speculative === undefined || engine.speculative.method === "ngram") return 0;
  return (shape.parametersB * 1e9 * 2) / 20 / spread.tensorParallel / 2 ** 30;
}
