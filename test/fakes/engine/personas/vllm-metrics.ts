import type { SimEngine } from "../engine.ts";
import { exposition, histogram, single, type Family, type Labels } from "../metrics.ts";

/** vLLM's `/metrics`. `oldMetrics` gives the names that vLLM had before version 0.10. */
export function vllmMetrics(engine: SimEngine): string {
  const labels: Labels = { model_name: engine.options.servedNames[0] ?? "", engine: "0" };
  const { oldMetrics = false, omitMetrics } = engine.host.settings;
  const families = [...gauges(engine, labels), ...counters(engine, labels), ...histograms(engine, labels)];
  return exposition(oldMetrics ? families.map((family) => renamed(family)) : families, omitMetrics);
}

const oldNames: Readonly<Record<string, string>> = {
  "vllm:kv_cache_usage_perc": "vllm:gpu_cache_usage_perc",
  "vllm:prefix_cache_queries_total": "vllm:gpu_prefix_cache_queries_total",
  "vllm:prefix_cache_hits_total": "vllm:gpu_prefix_cache_hits_total",
  "vllm:inter_token_latency_seconds": "vllm:time_per_output_token_seconds",
};

function renamed(family: Family): Family {
  const old = oldNames[family.name];
  if (old === undefined) return family;
  const samples = family.samples.map((sample) => ({ ...sample, name: sample.name.replace(family.name, old) }));
  return { ...family, name: old, samples };
}

function gauges(engine: SimEngine, labels: Labels): Family[] {
  const { batch, pool, options } = engine;
  const gauge = (name: string, value: number, more: Labels = {}): Family =>
    single("gauge", `vllm:${name}`, { labels: { ...labels, ...more }, value });
  const states = { awake: null, weights_offloaded: 1, discard_all: 2 };
  const sleepState: Family = {
    name: "vllm:engine_sleep_state",
    type: "gauge",
    help: "Engine sleep state",
    samples: Object.entries(states).map(([state, level]) => ({
      name: "vllm:engine_sleep_state",
      labels: { ...labels, sleep_state: state },
      value: (engine.asleep?.level ?? null) === level ? 1 : 0,
    })),
  };
  return [
    gauge("num_requests_running", batch.running.length),
    gauge("num_requests_waiting", batch.waiting.length),
    gauge("kv_cache_usage_perc", pool.usage),
    gauge("cache_config_info", 1, { block_size: String(options.blockTokens), num_gpu_blocks: String(pool.total) }),
    ...(options.sleepMode ? [sleepState] : []),
    ...(options.lora === null ? [] : [loraInfo(engine, options.lora.maxLoras)]),
  ];
}

/** The value is the time of the last change; a scraper takes the series with the greatest one. */
function loraInfo({ batch }: SimEngine, maxLoras: number): Family {
  const namesOf = (list: typeof batch.running): string =>
    [...new Set(list.map(({ work }) => work.salt).filter((name) => name !== ""))].join(",");
  const labels = {
    max_lora: String(maxLoras),
    running_lora_adapters: namesOf(batch.running),
    waiting_lora_adapters: namesOf(batch.waiting),
  };
  return single("gauge", "vllm:lora_requests_info", { labels, value: Date.now() / 1_000 });
}

function counters({ batch, finished }: SimEngine, labels: Labels): Family[] {
  const counter = (name: string, value: number): Family => single("counter", `vllm:${name}`, { labels, value });
  const name = "vllm:request_success_total";
  return [
    counter("prefix_cache_queries_total", batch.counters.prefixQueries),
    counter("prefix_cache_hits_total", batch.counters.prefixHits),
    counter("prompt_tokens_total", batch.counters.promptTokens),
    counter("generation_tokens_total", batch.counters.generationTokens),
    counter("num_preemptions_total", batch.counters.preemptions),
    {
      name,
      type: "counter",
      help: "Requests that ended",
      samples: Object.entries(finished).map(([reason, value]) => ({
        name,
        labels: { ...labels, finished_reason: reason },
        value,
      })),
    },
  ];
}

function histograms({ seconds }: SimEngine, labels: Labels): Family[] {
  return [
    histogram("vllm:time_to_first_token_seconds", seconds.firstToken, labels),
    histogram("vllm:inter_token_latency_seconds", seconds.betweenTokens, labels),
    histogram("vllm:e2e_request_latency_seconds", seconds.wholeRequest, labels),
    histogram("vllm:request_queue_time_seconds", seconds.queue, labels),
  ];
}
