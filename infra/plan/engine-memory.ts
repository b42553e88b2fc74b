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
  const width = shape.weights === "fp32" ? 4 : 2;
  switch (engine.kind) {
    case "vllm":
      return {
        utilization: engine.gpuMemoryUtilization,
        kvFraction: 1,
        kvWidth: engine.kvCacheDtype === "auto" ? width : 1,
        ...vllmQuantization(engine.quantization, shape),
      };
    case "triton":
      return {
        utilization: engine.backend === "vllm" ? engine.gpuMemoryUtilization : wholeGpu,
        // TensorRT-LLM's default for its KV cache.
        kvFraction: engine.backend === "vllm" ? 1 : 0.9,
        kvWidth: width,
        quantized: null,
        loadsWhole: false,
      };
    case "trtllm":
      return {
        utilization: wholeGpu,
        kvFraction: engine.kvCacheFreeMemoryFraction,
        kvWidth: engine.kvCacheDtype === "fp8" ? 1 : 2,
        quantized: null,
        loadsWhole: false,
      };
    case "llamacpp":
    case "embedded":
      return {
        utilization: wholeGpu,
        kvFraction: 1,
        kvWidth: engine.kind === "llamacpp" ? llamacppKvWidth[engine.kvCacheType] : 2,
        quantized: null,
        loadsWhole: false,
      };
  }
}

/** 8- and 4-bit blocks carry a scale for 32 numbers. */
const llamacppKvWidth = { f16: 2, q8_0: 34 / 32, q4_0: 18 / 32 } as const;

type Quantization = Extract<EngineSpec, { kind: "vllm" }>["quantization"];

/** AWQ and GPTQ read weights that were quantised beforehand; `fp8` and bitsandbytes quantise what they load. */
function vllmQuantization(
  quantization: Quantization,
  shape: ModelShape,
): Pick<EngineMemory, "quantized" | "loadsWhole"> {
  const isWide = ["fp32", "bf16", "fp16"].includes(shape.weights);
  switch (quantization) {
    case "fp8":
      return { quantized: isWide ? "fp8" : null, loadsWhole: isWide };
    case "bitsandbytes":
      return { quantized: isWide ? "int4" : null, loadsWhole: false };
    case "awq":
    case "awq_marlin":
    case "gptq":
    case "gptq_marlin":
      return { quantized: isWide ? "int4" : null, loadsWhole: false };
    case "modelopt":
    case "compressed-tensors":
    case undefined:
      return { quantized: null, loadsWhole: false };
  }
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
