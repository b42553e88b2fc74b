import { z } from "zod";

/** What a model is served for. Decides the endpoints, and what kind of golden prompt proves the engine. */
const task = z.enum(["generate", "embed"]).default("generate");

/**
 * The embedded llama.cpp engine. Names and defaults are those of its command line (`npm run engine -- --help`).
 * `threads` is chosen from the CPU quota and the model's size when absent.
 */
export const embeddedEngine = z.strictObject({
  kind: z.literal("embedded"),
  nCtx: z.int().min(64).default(4096),
  nGpuLayers: z.int().min(0).default(999),
  maxConcurrentRequests: z.int().min(1).default(10),
  parallelSequences: z.int().min(1).max(64).default(4),
  memory: z.enum(["lazy", "eager"]).default("lazy"),
  threads: z.int().min(1).optional(),
});

/** llama.cpp's own server: one GGUF model, on GPUs, the CPU, or both. */
export const llamacppEngine = z.strictObject({
  kind: z.literal("llamacpp"),
  task,
  /** Tokens of each sequence. */
  contextSize: z.int().min(64).default(8192),
  parallelSequences: z.int().min(1).max(64).default(4),
  gpuLayers: z.int().min(0).default(999),
  /** GPUs that the layers are split over. */
  gpuCount: z.int().min(1).max(16).default(1),
  /** Let a model that is larger than the GPU's memory spill into RAM (CUDA unified memory). */
  unifiedMemory: z.boolean().default(false),
  flashAttention: z.enum(["auto", "on", "off"]).default("auto"),
  kvCacheType: z.enum(["f16", "q8_0", "q4_0"]).default("f16"),
  threads: z.int().min(1).optional(),
});

const speculative = z.discriminatedUnion("method", [
  /** Proposes what followed the same words earlier in the prompt. */
  z.strictObject({
    method: z.literal("ngram"),
    tokens: z.int().min(1).max(16).default(5),
    lookupMax: z.int().min(1).max(16).default(4),
  }),
  /** A small model of the same family proposes; `model` is a hub id or a path on the node. */
  z.strictObject({
    method: z.enum(["draft_model", "eagle", "eagle3", "mtp"]),
    model: z.string().max(500).optional(),
    tokens: z.int().min(1).max(16).default(3),
  }),
]);

/** vLLM. Absent fields are left to vLLM's own defaults. */
export const vllmEngine = z.strictObject({
  kind: z.literal("vllm"),
  task,
  /** GPUs that each layer is split over; NVLink between them is required above 2. */
  tensorParallel: z.int().min(1).max(64).default(1),
  /** Stages that the layers are divided into. */
  pipelineParallel: z.int().min(1).max(64).default(1),
  /** Nodes of a replica (a LeaderWorkerSet with Ray); tensorParallel x pipelineParallel GPUs are spread evenly over them. */
  nodes: z.int().min(1).max(32).default(1),
  maxModelLen: z.int().min(64).optional(),
  /** Part of each GPU's memory that vLLM takes, weights and KV cache together. Less than half lets models share a GPU. */
  gpuMemoryUtilization: z.number().min(0.05).max(0.98).default(0.9),
  maxNumSeqs: z.int().min(1).optional(),
  maxNumBatchedTokens: z.int().min(1).optional(),
  dtype: z.enum(["auto", "bfloat16", "float16", "float32"]).default("auto"),
  quantization: z
    .enum(["awq", "awq_marlin", "gptq", "gptq_marlin", "fp8", "modelopt", "compressed-tensors", "bitsandbytes"])
    .optional(),
  kvCacheDtype: z.enum(["auto", "fp8", "fp8_e4m3", "fp8_e5m2"]).default("auto"),
  prefixCaching: z.boolean().default(true),
  chunkedPrefill: z.boolean().default(true),
  enforceEager: z.boolean().default(false),
  /** `runai_streamer` reads safetensors straight from the blob store on first use, while the cache fills for the next. */
  loadFormat: z.enum(["auto", "safetensors", "runai_streamer", "bitsandbytes"]).default("auto"),
  streamerConcurrency: z.int().min(1).max(128).default(16),
  /** What `DRAM_CACHED` means: 1 keeps the weights in RAM, 2 reads them again from disk at wake; 0 turns sleep off. */
  sleepLevel: z.union([z.literal(0), z.literal(1), z.literal(2)]).default(1),
  lora: z
    .strictObject({
      /** Adapters in one batch. */
      maxLoras: z.int().min(1).max(64).default(4),
      maxRank: z.union([8, 16, 32, 64, 128, 256, 320, 512].map((rank) => z.literal(rank))).default(16),
      /** Adapters that stay loaded; the least recently used one leaves. */
      maxCpuLoras: z.int().min(1).max(1024).default(16),
    })
    .optional(),
  speculative: speculative.optional(),
  toolCallParser: z
    .string()
    .regex(/^[a-z0-9_-]{1,40}$/)
    .optional(),
  reasoningParser: z
    .string()
    .regex(/^[a-z0-9_-]{1,40}$/)
    .optional(),
});

/** Triton Inference Server with explicit model control and its OpenAI front end. */
export const tritonEngine = z.strictObject({
  kind: z.literal("triton"),
  task,
  /** What runs the model inside Triton: `vllm` reads a safetensors folder, `tensorrtllm` a folder with a built engine. */
  backend: z.enum(["vllm", "tensorrtllm"]).default("vllm"),
  tensorParallel: z.int().min(1).max(16).default(1),
  maxModelLen: z.int().min(64).optional(),
  gpuMemoryUtilization: z.number().min(0.05).max(0.98).default(0.9),
});

/** TensorRT-LLM's `trtllm-serve`. */
export const trtllmEngine = z.strictObject({
  kind: z.literal("trtllm"),
  task,
  backend: z.enum(["pytorch", "tensorrt"]).default("pytorch"),
  tensorParallel: z.int().min(1).max(16).default(1),
  pipelineParallel: z.int().min(1).max(16).default(1),
  maxBatchSize: z.int().min(1).optional(),
  maxSeqLen: z.int().min(64).optional(),
  maxNumTokens: z.int().min(1).optional(),
  /** Part of the GPU memory left after the weights that the KV cache takes. */
  kvCacheFreeMemoryFraction: z.number().min(0.05).max(0.98).default(0.85),
  kvCacheDtype: z.enum(["auto", "fp8"]).default("auto"),
  chunkedPrefill: z.boolean().default(true),
});

/** What to run for a model: a closed union, one member per engine. */
export const engineSpec = z.discriminatedUnion("kind", [
  embeddedEngine,
  llamacppEngine,
  vllmEngine,
  tritonEngine,
  trtllmEngine,
]);
export type EngineSpec = z.infer<typeof engineSpec>;
export type EngineKind = EngineSpec["kind"];
/** The spec of one engine. */
export type SpecOf<Kind extends EngineKind> = Extract<EngineSpec, { kind: Kind }>;

/** What an engine can do; a stack or a request that asks for something absent is refused. */
export interface EngineCapabilities {
  readonly embeddings: boolean;
  readonly tools: boolean;
  /** `runtime`: loaded and unloaded while it serves. `start`: only with the model, and then for every request. */
  readonly adapters: "runtime" | "start" | "none";
  readonly sleep: boolean;
  readonly tensorParallel: boolean;
  readonly pipelineParallel: boolean;
  /** One replica over several nodes. */
  readonly multiNode: boolean;
  /** Serves without any GPU. */
  readonly cpu: boolean;
}
