import { Hono } from "hono";
import { z } from "zod";
import type { NodeEnv } from "../../../../runtime/lib/serve.ts";
import { flagTable, UsageError, type Flags } from "../argv.ts";
import type { SimEngine } from "../engine.ts";
import { EngineError } from "../errors.ts";
import { exposition, single, type Family } from "../metrics.ts";
import { addOpenAi, now, readJson } from "../openai.ts";
import { detokenize, tokenize } from "../text.ts";
import type { Persona } from "./persona.ts";

const switches = [
  "--help -h --metrics --slots --no-slots --no-webui --webui --no-ui --jinja --no-jinja --embeddings --embedding",
  "--rerank --reranking --offline --mlock --no-mmap --mmap --cont-batching -cb --no-cont-batching --context-shift",
  "--no-context-shift --lora-init-without-apply --no-warmup --verbose -v --log-disable --props --kv-unified -kvu",
];
const values = [
  "--model -m --alias -a --host --port --parallel -np --ctx-size -c --n-gpu-layers -ngl --gpu-layers --flash-attn -fa",
  "--cache-type-k -ctk --cache-type-v -ctv --threads -t --threads-batch -tb --split-mode -sm --tensor-split -ts",
  "--main-gpu -mg --device -dev --lora --lora-scaled --batch-size -b --ubatch-size -ub --api-key --api-key-file",
  "--cache-ram -cram --slot-save-path --fit -fit --log-verbosity -lv --verbosity --log-file --pooling --timeout -to",
  "--threads-http --chat-template --chat-template-file --n-predict -n --sleep-idle-seconds --rope-scaling --seed -s",
  "--reasoning-format --reasoning-budget --ssl-key-file --ssl-cert-file --cache-reuse --grammar-file --model-draft -md",
];
const table = flagTable({ switches, values });

/** llama.cpp's `llama-server -m MODEL.gguf ...`. */
export const llamacpp: Persona = {
  program: "llama-server",
  style: "plain",
  table,
  commands: [],
  defaultVersion: "0.4.0",
  versionFlag: "--version",
  versionLine: (version) => `version: ${version} (build 1, commit 80fb11a)\nbuilt with GNU 12.2.0 for Linux x86_64`,
  versionOn: "stderr",
  errorBody: ({ status, message }) => ({
    error: { code: status, message, type: errorTypes[status] ?? "server_error" },
  }),
  outOfMemory: [
    "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 4403.49 MiB on device 0: cudaMalloc failed: out of memory",
    "alloc_tensor_range: failed to allocate CUDA0 buffer of size 4617398272",
    "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
    "main: exiting due to model loading error",
  ],
  launch({ flags }) {
    const modelPath = flags.text("--model", "-m");
    if (modelPath === null) throw new UsageError("error: no model: give one with -m");
    const context = flags.number("--ctx-size", "-c") ?? 4096;
    const slots = Math.max(1, flags.number("--parallel", "-np") ?? 4);
    return {
      options: {
        modelPath,
        servedNames: [flags.text("--alias", "-a") ?? modelPath],
        unknownName: "ignored",
        mergedAdapters: flags.has("--lora-init-without-apply") ? [] : csv(flags.text("--lora") ?? ""),
        blockTokens: 16,
        maxNumSeqs: slots,
        maxNumBatchedTokens: flags.number("--batch-size", "-b") ?? 2048,
        maxModelLen: Math.floor(context / slots),
        prefixCaching: true,
        kvBlocks: Math.max(1, Math.floor(context / 16)),
        lora: null,
        adapters: {},
        sleepMode: false,
        streamInterval: 1,
      },
      listens: "early",
      shutdownMs: 0,
      doors: (engine) => [
        {
          app: appOf(engine, flags),
          host: flags.text("--host") ?? "127.0.0.1",
          port: flags.number("--port") ?? 8080,
        },
      ],
    };
  },
};

const errorTypes: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  404: "not_found_error",
  501: "not_supported_error",
  503: "unavailable_error",
};

/** Paths of llama-server's `--lora`: a row of CSV. */
function csv(text: string): string[] {
  const fields = [...text.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]+))/g)];
  return fields.map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain ?? "");
}

const defaults = { defaultTokens: { completion: null, chat: null }, task: "any" } as const;

function appOf(engine: SimEngine, flags: Flags): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  app.use("*", async (_c, next) => {
    if (engine.state === "loading" && engine.faults.lie_ready !== true) throw new EngineError(503, "Loading model");
    return await next();
  });
  for (const path of ["/health", "/v1/health"]) app.get(path, (c) => c.json({ status: "ok" }));
  app.get("/metrics", (c) => {
    if (!flags.has("--metrics")) {
      throw new EngineError(501, "This server does not support metrics endpoint. Start it with `--metrics`");
    }
    return c.text(metricsOf(engine), 200, { "content-type": "text/plain; version=0.0.4" });
  });
  app.get("/slots", (c) => {
    if (flags.has("--no-slots")) throw new EngineError(501, "This server does not support slots endpoint.");
    return c.json(slotsOf(engine));
  });
  app.get("/props", (c) =>
    c.json({
      total_slots: engine.options.maxNumSeqs,
      model_path: engine.options.modelPath,
      model_alias: engine.options.servedNames[0],
      default_generation_settings: { n_ctx: engine.contextTokens },
      is_sleeping: false,
      build_info: engine.options.version,
    }),
  );
  app.on(["GET", "POST"], "/lora-adapters", (c) =>
    c.json(engine.options.mergedAdapters.map((path, id) => ({ id, path, scale: 1 }))),
  );
  app.post("/tokenize", async (c) => {
    const { content } = await readJson(c, z.looseObject({ content: z.string() }));
    return c.json({ tokens: tokenize(content) });
  });
  app.post("/detokenize", async (c) => {
    const { tokens } = await readJson(c, z.looseObject({ tokens: z.array(z.int().min(0)) }));
    return c.json({ content: detokenize(tokens) });
  });
  app.get("/v1/models", (c) =>
    c.json({
      object: "list",
      data: engine.options.servedNames.map((id) => ({ id, object: "model", created: now(), owned_by: "llamacpp" })),
    }),
  );
  app.use("/v1/embeddings", async (_c, next) => {
    if (flags.has("--embeddings", "--embedding")) return await next();
    throw new EngineError(501, "This server does not support embeddings. Start it with `--embeddings`");
  });
  addOpenAi(app, engine, { tellCached: true, forceUsage: false, logprobs: "chat", ...defaults });
  return app;
}

function slotsOf({ batch, options, contextTokens }: SimEngine): object[] {
  return Array.from({ length: options.maxNumSeqs }, (_, id) => {
    const sequence = batch.running[id];
    return { id, n_ctx: contextTokens, is_processing: sequence !== undefined, n_past: sequence?.computed ?? 0 };
  });
}

function metricsOf({ batch, host }: SimEngine): string {
  const { counters, running, waiting } = batch;
  const line = (type: "counter" | "gauge", name: string, value: number): Family =>
    single(type, `llamacpp:${name}`, { labels: {}, value });
  const families = [
    line("counter", "prompt_tokens_total", counters.promptTokens - counters.prefixHits),
    line("counter", "prompt_tokens_cached_total", counters.prefixHits),
    line("counter", "tokens_predicted_total", counters.generationTokens),
    line("gauge", "requests_processing", running.length),
    line("gauge", "requests_deferred", waiting.length),
  ];
  return exposition(families, host.settings.omitMetrics);
}
