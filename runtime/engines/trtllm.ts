import type { SpecOf } from "../contracts/engine.ts";
import type { Engine, EnginePlace, Version } from "./engine.ts";
import {
  atLeast,
  completionProbe,
  gpuEnvironment,
  logLevelIn,
  noRuntimeAdapters,
  offlineEnvironment,
  textProbe,
} from "./shared.ts";

type Spec = SpecOf<"trtllm">;

/** The first version whose documented command line has `--config` and `--served_model_name`. */
const newFlags = [1, 3, 0] as const satisfies Version;

const optionsFile = "llm-api.yaml";

const none = "trtllm-serve cannot load adapters: use vLLM for this model.";

const severities = { error: "error", warning: "warning", info: "info", debug: "debug", trace: "trace" } as const;

/**
 * TensorRT-LLM's `trtllm-serve`: a folder of safetensors (`pytorch`) or a built engine (`tensorrt`).
 * It can neither sleep nor load adapters, and embeds nothing: another model means another process. Its Prometheus page is
 * at /prometheus/metrics; reading /metrics would empty a queue. An older one than 1.3 answers to its model's path.
 */
export const trtllm: Engine<Spec> = {
  command: ["trtllm-serve"],
  // It has no `--version`, but says its version whenever it starts.
  version: { argv: ["--help"], pinned: [1, 3, 0], minimum: [1, 1, 0] },
  formats: ({ backend }) => (backend === "pytorch" ? ["safetensors"] : ["engine"]),
  capabilities: {
    embeddings: false,
    tools: false,
    adapters: "none",
    sleep: false,
    tensorParallel: true,
    pipelineParallel: true,
    multiNode: false,
    cpu: false,
  },
  metrics: () => ({
    call: { method: "GET", path: "/prometheus/metrics" },
    names: {
      running: [{ name: "trtllm_num_requests_running" }],
      waiting: [{ name: "trtllm_num_requests_waiting" }],
      kvUsage: [{ name: "trtllm_kv_cache_utilization" }],
      prefixQueriesTotal: [{ name: "trtllm_prompt_tokens_total" }],
      prefixHitsTotal: [{ name: "trtllm_prompt_cached_tokens_total" }],
      promptTokensTotal: [{ name: "trtllm_prompt_tokens_total" }],
      generationTokensTotal: [{ name: "trtllm_generation_tokens_total" }],
    },
    kvTokens(series) {
      const blocks = series("trtllm_kv_cache_max_blocks")[0]?.value;
      const blockTokens = series("trtllm_kv_cache_tokens_per_block")[0]?.value;
      return blocks === undefined || blockTokens === undefined ? null : blocks * blockTokens;
    },
  }),
  refusals,
  // The KV cache takes its fraction of what the weights leave, so two engines on one GPU would take from each other.
  gpus: (spec) => ({
    count: spec.tensorParallel * spec.pipelineParallel,
    memory: { fraction: 1 },
    nvlink: spec.tensorParallel > 2,
    asleepBytes: 0,
  }),
  launch: (spec, place) => ({
    prelude: [],
    command: [...place.command, "serve", place.modelPath, ...Object.entries(flagsOf(spec, place)).flat()],
    env: {
      ...gpuEnvironment(place.gpus),
      ...offlineEnvironment,
      TRTLLM_NO_USAGE_STATS: "1",
    },
    // JSON is YAML.
    files: { [optionsFile]: `${JSON.stringify(optionsOf(spec), null, 2)}\n` },
    ready: { method: "GET", path: "/health" },
    health: { method: "GET", path: "/health" },
    afterReady: [],
    lifeline: "wrapper",
  }),
  streams: () => false,
  adapterLimits: () => ({ count: 0, rank: null }),
  sleep: () => null,
  wake: () => [],
  loadAdapter: () => noRuntimeAdapters(none),
  unloadAdapter: () => noRuntimeAdapters(none),
  // A TensorRT engine gives log-probabilities only if it was built to.
  golden: (_spec, model) => [completionProbe(model), textProbe(model)],
};

function flagsOf(spec: Spec, place: EnginePlace): Record<string, string> {
  const isNew = place.version === null || atLeast(place.version, newFlags);
  const flags: Record<string, string> = {
    "--host": "127.0.0.1",
    "--port": String(place.ports.api),
    "--backend": spec.backend,
    "--tp_size": String(spec.tensorParallel),
    "--pp_size": String(spec.pipelineParallel),
    "--log_level": logLevelIn(severities, place.logLevel),
    [isNew ? "--config" : "--extra_llm_api_options"]: `${place.workDirectory}/${optionsFile}`,
  };
  if (isNew) flags["--served_model_name"] = place.servedName;
  if (spec.maxBatchSize !== undefined) flags["--max_batch_size"] = String(spec.maxBatchSize);
  if (spec.maxSeqLen !== undefined) flags["--max_seq_len"] = String(spec.maxSeqLen);
  if (spec.maxNumTokens !== undefined) flags["--max_num_tokens"] = String(spec.maxNumTokens);
  return flags;
}

/** Fields of `tensorrt_llm.llmapi.LlmArgs`. */
function optionsOf(spec: Spec): Record<string, unknown> {
  return {
    // The two make the metrics; the second exists for this backend alone.
    return_perf_metrics: true,
    ...(spec.backend === "pytorch" ? { enable_iter_perf_stats: true } : {}),
    enable_chunked_prefill: spec.chunkedPrefill,
    kv_cache_config: {
      free_gpu_memory_fraction: spec.kvCacheFreeMemoryFraction,
      enable_block_reuse: true,
      ...(spec.kvCacheDtype === "auto" ? {} : { dtype: spec.kvCacheDtype }),
    },
  };
}

function refusals(spec: Spec): string[] {
  const found: string[] = [];
  if (spec.task === "embed") {
    found.push("trtllm-serve has no /v1/embeddings: use vLLM or llama-server for an embedding model.");
  }
  // `trtllm-serve serve --help`: "KV cache quantization dtype for PyTorch backend".
  if (spec.backend === "tensorrt" && spec.kvCacheDtype !== "auto") {
    found.push(
      `kvCacheDtype ${spec.kvCacheDtype} is built into a TensorRT engine: leave it out, or use backend pytorch.`,
    );
  }
  return found;
}
