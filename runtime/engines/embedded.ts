import { fileURLToPath } from "node:url";
import type { SpecOf } from "../contracts/engine.ts";
import type { Engine } from "./engine.ts";
import { completionProbe, embeddingProbe } from "./shared.ts";

const program = fileURLToPath(new URL("../embedded/main.ts", import.meta.url));

/**
 * The embedded llama.cpp engine (runtime/embedded).
 * Consumes a GGUF file. Cannot sleep, split a model over GPUs, or read safetensors.
 * On failure it prints one line that names the remedy and exits with 1.
 */
export const embedded: Engine<SpecOf<"embedded">> = {
  command: [process.execPath, program],
  version: null,
  formats: () => ["gguf"],
  capabilities: {
    embeddings: true,
    tools: true,
    adapters: "runtime",
    sleep: false,
    tensorParallel: false,
    pipelineParallel: false,
    multiNode: false,
    cpu: true,
  },
  metrics: () => ({
    call: { method: "GET", path: "/metrics" },
    names: {
      running: [{ name: "penstock_engine_requests_running" }],
      waiting: [{ name: "penstock_engine_requests_waiting" }],
      kvUsage: [{ name: "penstock_engine_kv_cache_usage_ratio" }],
      prefixQueriesTotal: [{ name: "penstock_engine_prompt_tokens_total" }],
      prefixHitsTotal: [{ name: "penstock_engine_cached_prompt_tokens_total" }],
      promptTokensTotal: [{ name: "penstock_engine_prompt_tokens_total" }],
      generationTokensTotal: [{ name: "penstock_engine_generation_tokens_total" }],
    },
    kvTokens: (series) => series("penstock_engine_kv_cache_capacity_tokens")[0]?.value ?? null,
  }),
  refusals: () => [],
  // It puts as many layers on a GPU as fit by itself, which is what a laptop needs; it reserves nothing.
  gpus: () => null,
  launch(spec, place) {
    const flags: Record<string, string> = {
      "--model-path": place.modelPath,
      "--served-model-name": place.servedName,
      "--host": "127.0.0.1",
      "--port": String(place.ports.api),
      "--n-ctx": String(spec.nCtx),
      "--n-gpu-layers": String(spec.nGpuLayers),
      "--max-concurrent-requests": String(spec.maxConcurrentRequests),
      "--parallel": String(spec.parallelSequences),
      "--memory": spec.memory,
      "--log-level": place.logLevel,
    };
    if (spec.threads !== undefined) flags["--threads"] = String(spec.threads);
    const adapters = Object.entries(place.adapters).flatMap(([name, path]) => ["--lora", `${name}=${path}`]);
    return {
      prelude: [],
      command: [...place.command, ...Object.entries(flags).flat(), ...adapters, "--stop-with-stdin"],
      env: {},
      files: {},
      ready: { method: "GET", path: "/ready" },
      health: { method: "GET", path: "/health" },
      afterReady: [],
      lifeline: "stdin",
    };
  },
  streams: () => false,
  adapterLimits: () => ({ count: 64, rank: null }),
  sleep: () => null,
  wake: () => [],
  loadAdapter: ({ name, path }) => ({
    method: "POST",
    path: "/v1/load_lora_adapter",
    body: { lora_name: name, lora_path: path },
  }),
  unloadAdapter: ({ name }) => ({ method: "POST", path: "/v1/unload_lora_adapter", body: { lora_name: name } }),
  // A GGUF file may hold a model that only embeds; nothing in the spec says so.
  golden: (_spec, model) => [completionProbe(model), embeddingProbe(model)],
};
