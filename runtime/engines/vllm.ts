import type { SpecOf } from "../contracts/engine.ts";
import type { Engine, EngineCall, Sample } from "./engine.ts";
import { completionProbe, embeddingProbe } from "./shared.ts";
import { vllmLaunch } from "./vllm-launch.ts";
import { vllmRefusals } from "./vllm-refusals.ts";

type Spec = SpecOf<"vllm">;

/** Bytes that a sleeping vLLM keeps on each GPU (CUDA context, graphs): 1.4 GiB was seen on an H100; with a margin. */
const asleepBytes = 2 * 2 ** 30;

const adapterName = (adapter: { readonly name: string; readonly servedName: string }): string =>
  `${adapter.servedName}:${adapter.name}`;

/**
 * vLLM's `vllm serve`: a folder of safetensors on one GPU, several, or several nodes.
 * Clients call an adapter `servedName:name`, and so it is loaded.
 */
export const vllm: Engine<Spec> = {
  command: ["vllm"],
  // 0.15.0 is the first with draft models in its present engine (vllm#24322, January 2026).
  version: { argv: ["--version"], pinned: [0, 22, 1], minimum: [0, 15, 0] },
  formats: () => ["safetensors"],
  capabilities: {
    embeddings: true,
    tools: true,
    adapters: "runtime",
    sleep: true,
    tensorParallel: true,
    pipelineParallel: true,
    multiNode: true,
    cpu: false,
  },
  metrics: () => ({
    call: { method: "GET", path: "/metrics" },
    names: {
      running: [{ name: "vllm:num_requests_running" }],
      waiting: [{ name: "vllm:num_requests_waiting" }],
      kvUsage: [{ name: "vllm:kv_cache_usage_perc" }, { name: "vllm:gpu_cache_usage_perc" }],
      prefixQueriesTotal: [
        { name: "vllm:prefix_cache_queries_total" },
        { name: "vllm:gpu_prefix_cache_queries_total" },
      ],
      prefixHitsTotal: [{ name: "vllm:prefix_cache_hits_total" }, { name: "vllm:gpu_prefix_cache_hits_total" }],
      promptTokensTotal: [{ name: "vllm:prompt_tokens_total" }],
      generationTokensTotal: [{ name: "vllm:generation_tokens_total" }],
    },
    // One series for each engine of a data-parallel server.
    kvTokens: (series) => series("vllm:cache_config_info").reduce((sum, sample) => sum + kvTokensOf(sample), 0),
  }),
  refusals: vllmRefusals,
  gpus: (spec) => ({
    count: Math.ceil((spec.tensorParallel * spec.pipelineParallel) / spec.nodes),
    memory: { fraction: spec.gpuMemoryUtilization },
    nvlink: spec.tensorParallel > 2,
    asleepBytes: spec.sleepLevel === 0 ? 0 : asleepBytes,
  }),
  launch: vllmLaunch,
  // A signature in the URI's query would end up in the command line; such a model goes through the cache.
  streams: (spec, source) => spec.loadFormat === "runai_streamer" && /^(az|s3):\/\/[^?#@]+$/.test(source),
  adapterLimits: ({ lora }) =>
    lora === undefined ? { count: 0, rank: null } : { count: lora.maxCpuLoras, rank: lora.maxRank },
  sleep: ({ sleepLevel }) => (sleepLevel === 0 ? null : [{ method: "POST", path: `/sleep?level=${sleepLevel}` }]),
  wake: ({ sleepLevel }) => wakeCalls[sleepLevel],
  loadAdapter: (adapter) => ({
    method: "POST",
    path: "/v1/load_lora_adapter",
    body: { lora_name: adapterName(adapter), lora_path: adapter.path },
  }),
  unloadAdapter: (adapter) => ({
    method: "POST",
    path: "/v1/unload_lora_adapter",
    body: { lora_name: adapterName(adapter) },
  }),
  golden: (spec, model) => [spec.task === "embed" ? embeddingProbe(model) : completionProbe(model)],
};

/**
 * Blocks of models with several kinds of attention differ in size, so that the product is right for the plain ones alone
 * (vllm#51163); newer versions tell the tokens themselves.
 */
function kvTokensOf({ labels }: Sample): number {
  const [told, blocks, blockTokens] = ["kv_cache_size_tokens", "num_gpu_blocks", "block_size"].map((label) =>
    Number(labels.get(label)),
  );
  return told !== undefined && told > 0 ? told : (blocks ?? Number.NaN) * (blockTokens ?? Number.NaN);
}

/**
 * What wakes vLLM from each level of sleep. Level 2 dropped the weights: room for them first, then the weights from
 * disk, and the KV cache only when those are in place, or the peak would not fit.
 */
const wakeCalls: Readonly<Record<Spec["sleepLevel"], readonly EngineCall[]>> = {
  0: [],
  1: [{ method: "POST", path: "/wake_up" }],
  2: [
    { method: "POST", path: "/wake_up?tags=weights" },
    { method: "POST", path: "/collective_rpc", body: { method: "reload_weights" } },
    { method: "POST", path: "/wake_up?tags=kv_cache" },
    { method: "POST", path: "/reset_prefix_cache" },
  ],
};
