import * as fc from "fast-check";
import {
  embeddedEngine,
  llamacppEngine,
  tritonEngine,
  trtllmEngine,
  vllmEngine,
  type EngineKind,
  type EngineSpec,
  type SpecOf,
} from "../../runtime/contracts/engine.ts";
import type { EnginePlace, Version } from "../../runtime/engines/engine.ts";
import { engines } from "../../runtime/engines/index.ts";

const task = fc.constantFrom("generate" as const, "embed" as const);
const bool = fc.boolean();
const small = fc.integer({ min: 1, max: 8 });
const tokens = fc.integer({ min: 64, max: 200_000 });
const fraction = fc.integer({ min: 5, max: 98 }).map((percent) => percent / 100);
const parser = fc.constantFrom("hermes", "qwen3_coder", "deepseek-r1");

const speculative = fc.oneof(
  fc.record({ method: fc.constant("ngram" as const), tokens: small, lookupMax: small }),
  fc.record(
    {
      method: fc.constantFrom("draft_model" as const, "eagle" as const, "eagle3" as const, "mtp" as const),
      model: fc.constantFrom("/models/draft", "org/draft"),
      tokens: small,
    },
    { requiredKeys: ["method", "tokens"] },
  ),
);

const lora = fc.record({
  maxLoras: small,
  maxRank: fc.constantFrom(8, 16, 64, 512),
  maxCpuLoras: fc.integer({ min: 1, max: 64 }),
});

/** Every option of every engine, present or absent, so that no flag escapes. */
export const specs: { readonly [Kind in EngineKind]: fc.Arbitrary<SpecOf<Kind>> } = {
  embedded: options({
    nCtx: tokens,
    nGpuLayers: fc.integer({ min: 0, max: 999 }),
    maxConcurrentRequests: small,
    parallelSequences: small,
    memory: fc.constantFrom("lazy", "eager"),
    threads: small,
  }).map((given) => embeddedEngine.parse({ kind: "embedded", ...given })),
  llamacpp: options({
    task,
    contextSize: tokens,
    parallelSequences: small,
    gpuLayers: fc.constantFrom(0, 20, 999),
    gpuCount: small,
    unifiedMemory: bool,
    flashAttention: fc.constantFrom("auto", "on", "off"),
    kvCacheType: fc.constantFrom("f16", "q8_0", "q4_0"),
    threads: small,
  }).map((given) => llamacppEngine.parse({ kind: "llamacpp", ...given })),
  vllm: options({
    task,
    tensorParallel: small,
    pipelineParallel: small,
    nodes: fc.integer({ min: 1, max: 4 }),
    maxModelLen: tokens,
    gpuMemoryUtilization: fraction,
    maxNumSeqs: small,
    maxNumBatchedTokens: tokens,
    dtype: fc.constantFrom("auto", "bfloat16", "float16", "float32"),
    quantization: fc.constantFrom("awq", "gptq_marlin", "fp8", "compressed-tensors", "bitsandbytes"),
    kvCacheDtype: fc.constantFrom("auto", "fp8", "fp8_e4m3", "fp8_e5m2"),
    prefixCaching: bool,
    chunkedPrefill: bool,
    enforceEager: bool,
    loadFormat: fc.constantFrom("auto", "safetensors", "runai_streamer", "bitsandbytes"),
    streamerConcurrency: small,
    sleepLevel: fc.constantFrom(0, 1, 2),
    lora,
    speculative,
    toolCallParser: parser,
    reasoningParser: parser,
  }).map((given) => vllmEngine.parse({ kind: "vllm", ...given })),
  triton: options({
    task,
    backend: fc.constantFrom("vllm", "tensorrtllm"),
    tensorParallel: small,
    maxModelLen: tokens,
    gpuMemoryUtilization: fraction,
  }).map((given) => tritonEngine.parse({ kind: "triton", ...given })),
  trtllm: options({
    task,
    backend: fc.constantFrom("pytorch", "tensorrt"),
    tensorParallel: small,
    pipelineParallel: small,
    maxBatchSize: small,
    maxSeqLen: tokens,
    maxNumTokens: tokens,
    kvCacheFreeMemoryFraction: fraction,
    kvCacheDtype: fc.constantFrom("auto", "fp8"),
    chunkedPrefill: bool,
  }).map((given) => trtllmEngine.parse({ kind: "trtllm", ...given })),
};

function options(shape: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<Record<string, unknown>> {
  return fc.record(shape, { requiredKeys: [] });
}

/** A spec with the place that it is launched at. */
export interface Launch {
  readonly spec: EngineSpec;
  readonly place: EnginePlace;
}

/** Any spec of `kind` at a place that fits it: a group of its size, GPUs, adapters, and any version that is taken. */
export function launches(kind: EngineKind): fc.Arbitrary<Launch> {
  const spec: fc.Arbitrary<EngineSpec> = specs[kind];
  return fc
    .record({
      spec,
      version: fc.constantFrom(null, ...versionsOf(kind)),
      gpus: fc.uniqueArray(fc.integer({ min: 0, max: 15 }), { maxLength: 8 }),
      adapters: fc.constantFrom({}, { legal: "/adapters/legal" }, { legal: "/adapters/legal", "a.b": "/adapters/a,b" }),
      logLevel: fc.constantFrom("trace", "debug", "info", "warn", "error", "silent"),
      index: fc.nat(3),
    })
    .map(({ spec: given, index, ...place }) => {
      const size = given.kind === "vllm" ? given.nodes : 1;
      const group = size === 1 ? null : { leaderAddress: "leader.group", size, index: index % size };
      return { spec: given, place: { ...placeOf(kind), ...place, group } };
    });
}

function versionsOf(kind: EngineKind): Version[] {
  const { version } = engines[kind];
  return version === null ? [] : [version.minimum, version.pinned, [99, 0, 0]];
}

/** One GPU on one node, with the ports and folders that an agent would give. */
export function placeOf(kind: EngineKind, changes: Partial<EnginePlace> = {}): EnginePlace {
  return {
    command: engines[kind].command,
    version: engines[kind].version?.pinned ?? null,
    modelPath: kind === "embedded" || kind === "llamacpp" ? "/cache/model.gguf" : "/cache/model",
    servedName: "llama-3.1-8b",
    ports: { api: 41001, admin: 41002, metrics: 41003 },
    adapters: {},
    gpus: [0],
    workDirectory: "/srv/engine-1",
    compileCacheDirectory: "/cache/compiled",
    group: null,
    logLevel: "info",
    ...changes,
  };
}

/** All kinds of engines there are. */
// The keys of the registry, which has one for every kind.
export const kinds = Object.keys(engines) as EngineKind[];
