import type { SpecOf } from "../contracts/engine.ts";
import type { Engine, GpuNeed } from "./engine.ts";
import { completionProbe, embeddingProbe, gpuEnvironment, logLevelIn, noRuntimeAdapters } from "./shared.ts";

type Spec = SpecOf<"llamacpp">;

/** Numbers of `--log-verbosity`, from the help of 0.4.0. */
const verbosity = { error: "1", warning: "2", info: "3", debug: "4", trace: "5" } as const;

const startOnly =
  "llama-server takes adapters at its start alone: name them with the model, or use the embedded engine or vLLM.";

/**
 * llama.cpp's `llama-server`: one GGUF file on GPUs, the CPU, or both.
 * Adapters are named at the start and then apply to every request. It cannot sleep on command: its own
 * `--sleep-idle-seconds` is a timer, and the agent owns the timers.
 */
export const llamacpp: Engine<Spec> = {
  command: ["llama-server"],
  version: { argv: ["--version"], pinned: [0, 4, 0], minimum: [0, 4, 0] },
  formats: () => ["gguf"],
  capabilities: {
    embeddings: true,
    tools: true,
    adapters: "start",
    sleep: false,
    tensorParallel: false,
    pipelineParallel: true,
    multiNode: false,
    cpu: true,
  },
  metrics: ({ contextSize, parallelSequences }) => ({
    call: { method: "GET", path: "/metrics" },
    names: {
      running: [{ name: "llamacpp:requests_processing" }],
      waiting: [{ name: "llamacpp:requests_deferred" }],
      kvUsage: [],
      prefixQueriesTotal: [],
      prefixHitsTotal: [{ name: "llamacpp:prompt_tokens_cached_total" }],
      promptTokensTotal: [{ name: "llamacpp:prompt_tokens_total" }],
      generationTokensTotal: [{ name: "llamacpp:tokens_predicted_total" }],
    },
    kvTokens: () => contextSize * parallelSequences,
  }),
  refusals,
  gpus: gpuNeed,
  launch: (spec, place) => ({
    prelude: [],
    command: [...place.command, ...Object.entries(flagsOf(spec, place)).flat(), ...switchesOf(spec)],
    env: {
      ...gpuEnvironment(place.gpus),
      ...(spec.unifiedMemory ? { GGML_CUDA_ENABLE_UNIFIED_MEMORY: "1" } : {}),
    },
    files: {},
    ready: { method: "GET", path: "/health" },
    health: { method: "GET", path: "/health" },
    afterReady: [],
    lifeline: "wrapper",
  }),
  streams: () => false,
  adapterLimits: () => ({ count: 64, rank: null }),
  sleep: () => null,
  wake: () => [],
  loadAdapter: () => noRuntimeAdapters(startOnly),
  unloadAdapter: () => noRuntimeAdapters(startOnly),
  golden: (spec, model) => [spec.task === "embed" ? embeddingProbe(model) : completionProbe(model)],
};

/**
 * Bytes of the KV cache for a token, as a part of the weights' bytes and at most, with 16 bits a number: Llama 3.2 1B in
 * 4 bits (32 KiB for 0.8 GB) and Llama 3.1 70B (320 KiB). Of the models with grouped attention few need more.
 */
const kvPart = (32 * 2 ** 10) / 0.8e9;
const kvAtMost = 320 * 2 ** 10;

/** Size of a number in the KV cache next to 16 bits; 8- and 4-bit blocks carry a scale for 32 numbers. */
const kvScale = { f16: 1, q8_0: 34 / 64, q4_0: 18 / 64 } as const satisfies Record<Spec["kvCacheType"], number>;

/** Weights, KV cache, and a tenth of the weights or at least 512 MiB for buffers, divided over the GPUs. */
function gpuNeed(spec: Spec, weightsBytes: number): GpuNeed | null {
  if (spec.gpuLayers === 0) return null;
  const tokens = spec.contextSize * spec.parallelSequences;
  const kvBytes = tokens * Math.min(weightsBytes * kvPart, kvAtMost) * kvScale[spec.kvCacheType];
  const bytes = weightsBytes + kvBytes + Math.max(weightsBytes / 10, 512 * 2 ** 20);
  return {
    count: spec.gpuCount,
    // With unified memory the model may be larger than the GPU, and whatever fits is taken.
    memory: spec.unifiedMemory ? { fraction: 0.9 } : { bytes: Math.ceil(bytes / spec.gpuCount) },
    nvlink: false,
    asleepBytes: 0,
  };
}

function flagsOf(spec: Spec, place: Parameters<Engine<Spec>["launch"]>[1]): Record<string, string> {
  const flags: Record<string, string> = {
    "--model": place.modelPath,
    "--alias": place.servedName,
    "--host": "127.0.0.1",
    "--port": String(place.ports.api),
    "--parallel": String(spec.parallelSequences),
    // llama-server divides this over its slots.
    "--ctx-size": String(spec.contextSize * spec.parallelSequences),
    "--n-gpu-layers": String(spec.gpuLayers),
    "--flash-attn": spec.flashAttention,
    "--cache-type-k": spec.kvCacheType,
    "--cache-type-v": spec.kvCacheType,
    // It would change what the spec left open; nothing is.
    "--fit": "off",
    // Up to 8 GiB of RAM by default, which the agent's accounts know nothing of.
    "--cache-ram": "0",
    "--log-verbosity": logLevelIn(verbosity, place.logLevel),
  };
  if (spec.threads !== undefined) flags["--threads"] = String(spec.threads);
  if (spec.gpuCount > 1) {
    flags["--split-mode"] = "layer";
    flags["--tensor-split"] = Array.from({ length: spec.gpuCount }, () => "1").join(",");
  }
  if (spec.task === "embed") {
    // An input of an embedding model must fit one physical batch.
    flags["--batch-size"] = String(spec.contextSize);
    flags["--ubatch-size"] = String(spec.contextSize);
  }
  const adapters = Object.values(place.adapters);
  if (adapters.length > 0) flags["--lora"] = adapters.map(csvField).join(",");
  return flags;
}

function switchesOf({ task }: Spec): string[] {
  return ["--metrics", "--no-slots", "--no-webui", "--offline", task === "embed" ? "--embeddings" : "--jinja"];
}

/** llama-server reads lists of files as a row of CSV. */
function csvField(path: string): string {
  return /[",]/.test(path) ? `"${path.replaceAll('"', '""')}"` : path;
}

function refusals(spec: Spec): string[] {
  const found: string[] = [];
  // llama-context.cpp: "quantized V cache requires flash_attn to be enabled".
  if (spec.flashAttention === "off" && spec.kvCacheType !== "f16") {
    found.push(
      `kvCacheType ${spec.kvCacheType} needs flash attention: set flashAttention to auto, or kvCacheType to f16.`,
    );
  }
  if (spec.gpuLayers === 0 && spec.gpuCount > 1) {
    found.push(`gpuCount ${spec.gpuCount} has no layers to split: set gpuLayers above 0, or gpuCount to 1.`);
  }
  if (spec.gpuLayers === 0 && spec.unifiedMemory) {
    found.push("unifiedMemory is for layers on a GPU: set gpuLayers above 0, or leave unifiedMemory out.");
  }
  return found;
}
