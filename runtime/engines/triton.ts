import type { SpecOf } from "../contracts/engine.ts";
import type { Engine, EngineCall, EngineMetrics } from "./engine.ts";
import { completionProbe, embeddingProbe, noRuntimeAdapters, textProbe } from "./shared.ts";
import { tritonLaunch, tritonModels } from "./triton-launch.ts";

type Spec = SpecOf<"triton">;

/** Bytes that Triton's own process may keep on each GPU with no model loaded: a CUDA context and its pools. An estimate. */
const asleepBytes = 2 ** 30;

const none = "Triton takes no adapters here: use vLLM for this model.";

const model = (name: string, action: "load" | "unload"): EngineCall => ({
  method: "POST",
  path: `/v1/models/${name}/${action}`,
});

/** Calls that load what serves `servedName`, in order. */
const loads = (spec: Spec, servedName: string): EngineCall[] =>
  tritonModels(spec, servedName).map((name) => model(name, "load"));

/**
 * Triton Inference Server behind its OpenAI front end, with explicit model control (triton-inference-server/server#8682):
 * the process starts empty, loads its one model by a call, sleeps by unloading it, and wakes by loading it again from disk.
 * The front end is one port: chat, model control and metrics. Its KServe front ends stay off.
 *
 * Its vLLM back end publishes token counters but no gauge of running requests, its TensorRT-LLM back end the reverse.
 * The front end speaks to TensorRT-LLM's `inflight_batcher_llm` models alone, which come with NVIDIA's image.
 */
export const triton: Engine<Spec> = {
  command: ["python3", "/opt/tritonserver/python/openai/openai_frontend/main.py"],
  // The front end cannot tell its version; its image is what pins it: Penstock was written against 2.70.0 (26.07).
  version: null,
  formats: ({ backend }) => (backend === "vllm" ? ["safetensors"] : ["engine"]),
  capabilities: {
    embeddings: true,
    tools: false,
    adapters: "none",
    sleep: true,
    tensorParallel: true,
    pipelineParallel: false,
    multiNode: false,
    cpu: false,
  },
  metrics: ({ backend }) => ({ call: { method: "GET", path: "/metrics" }, names: names[backend], kvTokens }),
  refusals,
  gpus: (spec) => ({
    count: spec.tensorParallel,
    // TensorRT-LLM's fraction is of what the weights leave.
    memory: { fraction: spec.backend === "vllm" ? spec.gpuMemoryUtilization : 1 },
    nvlink: spec.tensorParallel > 2,
    asleepBytes,
  }),
  launch: (spec, place) => tritonLaunch(spec, place, loads(spec, place.servedName)),
  streams: () => false,
  adapterLimits: () => ({ count: 0, rank: null }),
  sleep: (spec, servedName) =>
    tritonModels(spec, servedName)
      .toReversed()
      .map((name) => model(name, "unload")),
  wake: loads,
  loadAdapter: () => noRuntimeAdapters(none),
  unloadAdapter: () => noRuntimeAdapters(none),
  golden(spec, servedName) {
    if (spec.task === "embed") return [embeddingProbe(servedName)];
    return spec.backend === "vllm" ? [completionProbe(servedName)] : [textProbe(servedName)];
  },
};

/** TensorRT-LLM's blocks; the vLLM back end tells nothing of them. */
const kvTokens: EngineMetrics["kvTokens"] = (series) => {
  const blocks = series("nv_trt_llm_kv_cache_block_metrics");
  const told = (type: string): number | undefined =>
    blocks.find(({ labels }) => labels.get("kv_cache_block_type") === type)?.value;
  const [most, each] = [told("max"), told("tokens_per")];
  return most === undefined || each === undefined ? null : most * each;
};

/** What each back end publishes. */
const names = {
  vllm: {
    running: [],
    waiting: [{ name: "nv_inference_pending_request_count" }],
    kvUsage: [],
    prefixQueriesTotal: [],
    prefixHitsTotal: [],
    promptTokensTotal: [{ name: "vllm:prompt_tokens_total" }],
    generationTokensTotal: [{ name: "vllm:generation_tokens_total" }],
  },
  tensorrtllm: {
    running: [{ name: "nv_trt_llm_request_metrics", labels: { request_type: "scheduled" } }],
    waiting: [{ name: "nv_trt_llm_request_metrics", labels: { request_type: "waiting" } }],
    kvUsage: [{ name: "nv_trt_llm_kv_cache_block_metrics", labels: { kv_cache_block_type: "fraction" } }],
    prefixQueriesTotal: [],
    prefixHitsTotal: [],
    promptTokensTotal: [],
    generationTokensTotal: [],
  },
} as const satisfies Record<Spec["backend"], EngineMetrics["names"]>;

function refusals(spec: Spec): string[] {
  if (spec.backend === "vllm") return [];
  const found: string[] = [];
  if (spec.maxModelLen !== undefined) {
    found.push("maxModelLen is built into a TensorRT engine: leave it out, or build the engine anew.");
  }
  // _create_trtllm_embedding_request: "TRT-LLM backend and Python backend do not support embedding requests".
  if (spec.task === "embed") found.push("Triton embeds with backend vllm alone: set backend to vllm.");
  return found;
}
