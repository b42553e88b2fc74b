import { readFileSync } from "node:fs";
import { Hono } from "hono";
import { parse } from "yaml";
import { z } from "zod";
import type { NodeEnv } from "../../../../runtime/lib/serve.ts";
import { flagTable, UsageError } from "../argv.ts";
import type { SimEngine } from "../engine.ts";
import { exposition, histogram, single, type Family } from "../metrics.ts";
import { addOpenAi, now } from "../openai.ts";
import type { Persona } from "./persona.ts";

const values = [
  "--host --port --backend --tp_size --tensor_parallel_size --pp_size --pipeline_parallel_size --ep_size",
  "--max_batch_size --max_num_tokens --max_seq_len --max_beam_width --kv_cache_free_gpu_memory_fraction",
  "--free_gpu_memory_fraction --kv_cache_dtype --tokenizer --custom_tokenizer --served_model_name --log_level",
  "--config --extra_llm_api_options --gpus_per_node --cp_size --revision --num_postprocess_workers",
  "--reasoning_parser --tool_parser --cluster_size --moe_cluster_parallel_size --metadata_server_config_file",
  "--server_role --chat_template --allow_request_chat_template --custom_module_dirs --media_io_kwargs",
];
const switches = [
  "--help -h --trust_remote_code --fail_fast_on_attention_window_too_large --grpc --enable_chunked_prefill",
];
const table = flagTable({ switches, values });

const configFile = z.looseObject({
  return_perf_metrics: z.boolean().optional(),
  enable_iter_perf_stats: z.boolean().optional(),
});

/** `trtllm-serve MODEL ...`. */
export const trtllm: Persona = {
  program: "trtllm-serve",
  style: "plain",
  table,
  commands: ["serve"],
  defaultVersion: "1.3.0",
  versionFlag: "--help",
  versionLine: (version) => `[TensorRT-LLM] TensorRT LLM version: ${version}`,
  versionOn: "stdout",
  errorBody: ({ status, type, param, message }) => ({ object: "error", message, type, param, code: status }),
  outOfMemory: [
    "[TRT-LLM] [E] Failed to initialize executor on rank 0: CUDA out of memory. Tried to allocate 1.96 GiB.",
    "RuntimeError: Executor worker returned error",
  ],
  launch({ positionals, flags }) {
    const modelPath = positionals[0];
    if (modelPath === undefined)
      throw new UsageError("Usage: trtllm-serve [OPTIONS] MODEL\n\nError: Missing argument 'MODEL'.");
    const configPath = flags.text("--config", "--extra_llm_api_options");
    const config = configPath === null ? {} : configFile.parse(parse(readFileSync(configPath, "utf8")) ?? {});
    return {
      options: {
        modelPath,
        servedNames: [flags.text("--served_model_name") ?? modelPath],
        // It answers to any name.
        unknownName: "ignored",
        mergedAdapters: [],
        blockTokens: 32,
        maxNumSeqs: flags.number("--max_batch_size") ?? 2048,
        maxNumBatchedTokens: flags.number("--max_num_tokens") ?? 8192,
        maxModelLen: flags.number("--max_seq_len"),
        prefixCaching: true,
        kvBlocks: null,
        lora: null,
        adapters: {},
        sleepMode: false,
        streamInterval: 1,
      },
      listens: "loaded",
      shutdownMs: 0,
      doors: (engine) => [
        {
          app: appOf(engine, config),
          host: flags.text("--host") ?? "localhost",
          port: flags.number("--port") ?? 8000,
        },
      ],
    };
  },
};

const defaults = { defaultTokens: { completion: 16, chat: null }, task: "generate" } as const;

function appOf(engine: SimEngine, config: z.infer<typeof configFile>): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  for (const path of ["/health", "/health_generate"]) app.get(path, (c) => c.body(null, 200));
  app.get("/version", (c) => c.json({ version: engine.options.version }));
  app.get("/v1/models", (c) =>
    c.json({
      object: "list",
      data: engine.options.servedNames.map((id) => ({ id, object: "model", created: now(), owned_by: "tensorrt_llm" })),
    }),
  );
  if (config.return_perf_metrics === true) {
    app.get("/prometheus/metrics", (c) =>
      c.text(metricsOf(engine), 200, { "content-type": "text/plain; version=0.0.4" }),
    );
  }
  let told = 0;
  app.get("/metrics", (c) => {
    const { generationTokens } = engine.batch.counters;
    const news = config.enable_iter_perf_stats === true && generationTokens > told;
    // Reading empties the queue, as it does there.
    told = generationTokens;
    return c.json(news ? [{ iter: generationTokens, numActiveRequests: engine.batch.running.length }] : []);
  });
  addOpenAi(app, engine, { tellCached: true, forceUsage: false, logprobs: "openai", ...defaults });
  return app;
}

function metricsOf(engine: SimEngine): string {
  const { batch, pool, options, seconds, host } = engine;
  const labels = { model_name: options.servedNames[0] ?? "", engine_type: "trtllm" };
  const gauge = (name: string, value: number): Family => single("gauge", `trtllm_${name}`, { labels, value });
  const { prefixHits, prefixQueries, promptTokens, generationTokens } = batch.counters;
  const counter = (name: string, value: number): Family => single("counter", `trtllm_${name}`, { labels, value });
  const families = [
    gauge("num_requests_running", batch.running.length),
    gauge("num_requests_waiting", batch.waiting.length),
    gauge("kv_cache_utilization", pool.usage),
    gauge("kv_cache_hit_rate", prefixQueries === 0 ? 0 : prefixHits / prefixQueries),
    gauge("kv_cache_tokens_per_block", options.blockTokens),
    gauge("kv_cache_max_blocks", pool.total),
    counter("prompt_tokens_total", promptTokens),
    counter("prompt_cached_tokens_total", prefixHits),
    counter("generation_tokens_total", generationTokens),
    histogram("trtllm_time_to_first_token_seconds", seconds.firstToken, labels),
    histogram("trtllm_e2e_request_latency_seconds", seconds.wholeRequest, labels),
  ];
  return exposition(families, host.settings.omitMetrics);
}
