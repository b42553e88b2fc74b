import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { Hono } from "hono";
import { z } from "zod";
import type { NodeEnv } from "../../../../runtime/lib/serve.ts";
import { flagTable, UsageError, type FlagTable } from "../argv.ts";
import type { SimEngine } from "../engine.ts";
import { EngineError } from "../errors.ts";
import { exposition, histogram, single, type Family } from "../metrics.ts";
import { addOpenAi, now } from "../openai.ts";
import type { Persona } from "./persona.ts";

const values = [
  "--model-repository --tokenizer --backend --lora-separator --tritonserver-log-verbose-level --host --openai-port",
  "--uvicorn-log-level --kserve-http-port --kserve-grpc-port --tool-call-parser --chat-template --default-max-tokens",
  "--model-control-mode --load-model",
];
const switches = ["--help -h --enable-kserve-frontends"];
const table: FlagTable = { ...flagTable({ switches, values }), "--openai-restricted-api": "values" };

const modelJson = z.looseObject({
  model: z.string().min(1),
  max_model_len: z.int().min(1).nullish(),
  enable_prefix_caching: z.boolean().nullish(),
});

/** What a model repository holds, as far as the simulator reads it. */
interface Repository {
  readonly names: readonly string[];
  readonly backend: "vllm" | "tensorrtllm";
  readonly modelPath: string;
  readonly maxModelLen: number | null;
  readonly reportsCustomMetrics: boolean;
}

/** Triton with its OpenAI front end: `python3 main.py --model-repository R ...`. */
export const triton: Persona = {
  program: "main.py",
  style: "argparse",
  table,
  commands: [],
  defaultVersion: "2.70.0",
  versionFlag: "--version",
  versionLine: (version) => version,
  versionOn: "stdout",
  errorBody: ({ message }) => ({ detail: message }),
  outOfMemory: [
    "E1121 model_repository_manager.cc:703] failed to load 'model' version 1: Internal: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB.",
    "tritonserver._c.triton_bindings.InternalError: failed to load all models",
  ],
  launch({ flags }) {
    const folder = flags.text("--model-repository");
    if (folder === null) {
      throw new UsageError(
        "usage: main.py [-h]\nmain.py: error: the following arguments are required: --model-repository",
      );
    }
    const repository = readRepository(folder, flags.text("--backend"));
    const explicit = flags.text("--model-control-mode") === "explicit";
    const loadsAtStart = !explicit || flags.has("--load-model");
    const host = flags.text("--host") ?? "0.0.0.0";
    return {
      options: {
        modelPath: repository.modelPath,
        servedNames: repository.names,
        unknownName: 400,
        mergedAdapters: [],
        blockTokens: 16,
        maxNumSeqs: 256,
        maxNumBatchedTokens: 8192,
        maxModelLen: repository.maxModelLen,
        prefixCaching: true,
        kvBlocks: null,
        lora: null,
        adapters: {},
        sleepMode: false,
        streamInterval: 1,
      },
      listens: "loaded",
      shutdownMs: 0,
      doors(engine) {
        if (!loadsAtStart) engine.unloaded = true;
        return [
          {
            host,
            port: flags.number("--openai-port") ?? 9000,
            app: openAiApp(engine, { repository, explicit, maxTokens: flags.number("--default-max-tokens") ?? 16 }),
          },
          ...(flags.has("--enable-kserve-frontends")
            ? [{ host, port: flags.number("--kserve-http-port") ?? 8000, app: kserveApp(engine, { explicit }) }]
            : []),
        ];
      },
    };
  },
};

function readRepository(folder: string, override: string | null): Repository {
  const names = readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
  const configs = names.map((name) => readOr(join(folder, name, "config.pbtxt")));
  const json = names.map((name) => readOr(join(folder, name, "1", "model.json"))).find((text) => text !== "");
  const all = configs.join("\n");
  const backend = override ?? (/backend:\s*"tensorrtllm"/.test(all) ? "tensorrtllm" : "vllm");
  if (backend !== "vllm" && backend !== "tensorrtllm") {
    throw new UsageError(`main.py: error: argument --backend: invalid choice: '${backend}'`);
  }
  const model = json === undefined ? null : modelJson.parse(JSON.parse(json));
  const enginePath = /gpt_model_path[\s\S]{0,80}?string_value:\s*"([^"]+)"/.exec(all)?.[1];
  return {
    names,
    backend,
    modelPath: model?.model ?? enginePath ?? join(folder, names[0] ?? ""),
    maxModelLen: model?.max_model_len ?? null,
    reportsCustomMetrics: /REPORT_CUSTOM_METRICS[\s\S]{0,80}?(yes|true)/i.test(all),
  };
}

function readOr(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function openAiApp(
  engine: SimEngine,
  { repository, explicit, maxTokens }: { repository: Repository; explicit: boolean; maxTokens: number },
): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  app.get("/health/ready", (c) => c.body(null, engine.state === "ready" ? 200 : 400));
  app.get("/metrics", (c) => c.text(metricsOf(engine, repository)));
  const card = (id: string): object => ({ id, object: "model", created: now(), owned_by: "Triton Inference Server" });
  app.get("/v1/models", (c) =>
    c.json({ object: "list", data: engine.unloaded ? [] : engine.options.servedNames.map((id) => card(id)) }),
  );
  app.post("/v1/models/:name/load", async (c) => {
    await load(engine, { name: c.req.param("name"), explicit });
    return c.json(card(c.req.param("name")));
  });
  app.post("/v1/models/:name/unload", (c) => {
    unload(engine, { name: c.req.param("name"), explicit });
    return c.json({ status: "success", model: c.req.param("name") });
  });
  app.use("/v1/*", async (_c, next) => {
    if (engine.unloaded) throw new EngineError(400, "Unknown model: it is not loaded");
    return await next();
  });
  const logprobs = repository.backend === "vllm" ? "openai" : "refused";
  const defaultTokens = { completion: maxTokens, chat: maxTokens };
  addOpenAi(app, engine, { tellCached: false, forceUsage: false, logprobs, defaultTokens, task: "any" });
  return app;
}

/** The KServe v2 protocol, as far as it manages models. */
function kserveApp(engine: SimEngine, { explicit }: { explicit: boolean }): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  app.onError((error, c) => c.json({ error: error.message }, 400));
  app.get("/v2/health/live", (c) => c.body(null, 200));
  app.get("/v2/health/ready", (c) => c.body(null, engine.state === "ready" ? 200 : 400));
  app.get("/v2/models/:name/ready", (c) => {
    const known = engine.options.servedNames.includes(c.req.param("name"));
    return c.body(null, known && !engine.unloaded ? 200 : 400);
  });
  app.post("/v2/repository/index", (c) =>
    c.json(
      engine.options.servedNames.map((name) =>
        engine.unloaded
          ? { name, version: "1", state: "UNAVAILABLE", reason: "unloaded" }
          : { name, version: "1", state: "READY" },
      ),
    ),
  );
  app.post("/v2/repository/models/:name/load", async (c) => {
    await load(engine, { name: c.req.param("name"), explicit });
    return c.body(null, 200);
  });
  app.post("/v2/repository/models/:name/unload", (c) => {
    unload(engine, { name: c.req.param("name"), explicit });
    return c.body(null, 200);
  });
  return app;
}

interface Management {
  readonly name: string;
  readonly explicit: boolean;
}

async function load(engine: SimEngine, { name, explicit }: Management): Promise<void> {
  assertManaged(engine, { name, explicit });
  await engine.loadAgain();
}

function unload(engine: SimEngine, { name, explicit }: Management): void {
  assertManaged(engine, { name, explicit });
  engine.unload();
}

function assertManaged(engine: SimEngine, { name, explicit }: Management): void {
  if (!explicit) throw new EngineError(400, "explicit model load / unload is not allowed if polling is enabled");
  if (engine.options.servedNames.includes(name)) return;
  throw new EngineError(400, `failed to load '${name}', failed to poll from model repository`);
}

function metricsOf(engine: SimEngine, repository: Repository): string {
  const { batch, finished, host } = engine;
  const labels = { model: engine.options.servedNames[0] ?? "", version: "1" };
  const done = finished.stop + finished.length;
  const families = [
    single("counter", "nv_inference_request_success", { labels, value: done }),
    single("counter", "nv_inference_count", { labels, value: done }),
    single("gauge", "nv_inference_pending_request_count", { labels, value: batch.waiting.length }),
    ...(repository.backend === "vllm"
      ? repository.reportsCustomMetrics
        ? vllmFamilies(engine, labels)
        : []
      : trtllmFamilies(engine, labels)),
  ];
  return exposition(families, host.settings.omitMetrics);
}

/** What Triton's vLLM back end reports when its model asks for it with `REPORT_CUSTOM_METRICS`: no gauges. */
function vllmFamilies({ batch, seconds }: SimEngine, labels: Readonly<Record<string, string>>): Family[] {
  const counter = (name: string, value: number): Family => single("counter", `vllm:${name}`, { labels, value });
  return [
    counter("prompt_tokens_total", batch.counters.promptTokens),
    counter("generation_tokens_total", batch.counters.generationTokens),
    histogram("vllm:time_to_first_token_seconds", seconds.firstToken, labels),
    histogram("vllm:time_per_output_token_seconds", seconds.betweenTokens, labels),
  ];
}

/** What Triton's TensorRT-LLM back end reports. */
function trtllmFamilies(engine: SimEngine, labels: Readonly<Record<string, string>>): Family[] {
  const { batch, pool, options } = engine;
  const family = (name: string, label: string, lines: Readonly<Record<string, number>>): Family => ({
    name,
    type: "gauge",
    help: name.replaceAll("_", " "),
    samples: Object.entries(lines).map(([key, value]) => ({ name, labels: { ...labels, [label]: key }, value })),
  });
  const { running, waiting } = batch;
  const used = pool.total - pool.free;
  return [
    family("nv_trt_llm_request_metrics", "request_type", {
      active: running.length + waiting.length,
      scheduled: running.length,
      waiting: waiting.length,
      max: options.maxNumSeqs,
    }),
    family("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", {
      fraction: pool.usage,
      used,
      free: pool.free,
      max: pool.total,
      tokens_per: options.blockTokens,
    }),
  ];
}
