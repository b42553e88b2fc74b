import { Hono } from "hono";
import { z } from "zod";
import type { NodeEnv } from "../../../../runtime/lib/serve.ts";
import { UsageError, type Flags } from "../argv.ts";
import { vllmErrorBody } from "../answers.ts";
import { readJson, addOpenAi } from "../openai.ts";
import type { SimEngine } from "../engine.ts";
import { EngineError } from "../errors.ts";
import { addExtras } from "../extras.ts";
import type { Environment, Persona } from "./persona.ts";
import { vllmFlags } from "./vllm-flags.ts";
import { vllmMetrics } from "./vllm-metrics.ts";

const loraModule = z.looseObject({ name: z.string(), path: z.string() });
const adapterBody = z.looseObject({
  lora_name: z.string().min(1),
  lora_path: z.string().min(1).optional(),
  load_inplace: z.boolean().optional(),
});
const rpcBody = z.looseObject({ method: z.string() });
const tag = z.enum(["weights", "kv_cache"]);

/** `vllm serve MODEL ...`. */
export const vllm: Persona = {
  program: "vllm",
  style: "argparse",
  table: vllmFlags,
  commands: ["serve"],
  defaultVersion: "0.22.1",
  versionFlag: "--version",
  versionLine: (version) => version,
  versionOn: "stdout",
  errorBody: vllmErrorBody,
  outOfMemory: [
    "(EngineCore_DP0 pid=1) ERROR [core.py:842] EngineCore failed to start.",
    "(EngineCore_DP0 pid=1) ERROR [core.py:842] Traceback (most recent call last):",
    "(EngineCore_DP0 pid=1) ERROR [core.py:842] torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of 79.11 GiB of which 1.02 GiB is free. Process 1 has 78.08 GiB memory in use.",
    "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}",
  ],
  launch({ positionals, flags, env }) {
    const modelPath = positionals[0] ?? flags.text("--model");
    if (modelPath === null) throw new UsageError("usage: vllm serve [model_tag] [options]\nvllm: error: no model");
    const named = flags.all("--served-model-name");
    return {
      options: {
        modelPath,
        servedNames: named.length === 0 ? [modelPath] : named,
        unknownName: 404,
        mergedAdapters: [],
        blockTokens: flags.number("--block-size") ?? 16,
        maxNumSeqs: flags.number("--max-num-seqs") ?? 256,
        maxNumBatchedTokens: flags.number("--max-num-batched-tokens") ?? 8192,
        maxModelLen: lengthOf(flags),
        prefixCaching: !flags.has("--no-enable-prefix-caching"),
        kvBlocks: flags.number("--num-gpu-blocks-override"),
        lora: flags.has("--enable-lora") ? loraOf(flags) : null,
        adapters: Object.fromEntries(flags.all("--lora-modules").map((text) => adapterOf(text))),
        sleepMode: flags.has("--enable-sleep-mode"),
        streamInterval: flags.number("--stream-interval") ?? 1,
      },
      listens: "loaded",
      shutdownMs: (flags.number("--shutdown-timeout") ?? 0) * 1_000,
      doors(engine) {
        const app = new Hono<NodeEnv>();
        const apiKey = flags.text("--api-key") ?? env["VLLM_API_KEY"];
        if (apiKey !== undefined) guard(app, apiKey);
        addOpenAi(app, engine, {
          tellCached: flags.has("--enable-prompt-tokens-details"),
          forceUsage: flags.has("--enable-force-include-usage"),
          logprobs: "openai",
          defaultTokens: { completion: 16, chat: null },
          task: taskOf(flags),
        });
        addExtras(app, engine);
        addStatus(app, engine);
        if (isOn(env["VLLM_ALLOW_RUNTIME_LORA_UPDATING"])) addLora(app, engine);
        if (isOn(env["VLLM_SERVER_DEV_MODE"])) addDevMode(app, engine);
        return [{ app, host: flags.text("--host") ?? "0.0.0.0", port: flags.number("--port") ?? 8000 }];
      },
    };
  },
};

/** With a runner it has the endpoints of that alone; without one the simulator does not look at the model. */
function taskOf(flags: Flags): "generate" | "embed" | "any" {
  const runner = flags.text("--runner");
  if (runner === "generate") return "generate";
  return runner === "pooling" ? "embed" : "any";
}

function isOn(value: Environment[string]): boolean {
  return value !== undefined && ["1", "true"].includes(value.toLowerCase());
}

/** `8192`, `8k` or `8K`; `auto` is as much as fits. */
function lengthOf(flags: Flags): number | null {
  const text = flags.text("--max-model-len");
  if (text === null || text === "auto" || text === "-1") return null;
  const match = /^(\d+(?:\.\d+)?)([kKmM]?)$/.exec(text);
  if (match === null) throw new UsageError(`vllm: error: argument --max-model-len: invalid value: '${text}'`);
  const unit = { "": 1, k: 1_000, K: 1_024, m: 1e6, M: 2 ** 20 }[match[2] ?? ""] ?? 1;
  return Number(match[1]) * unit;
}

function loraOf(flags: Flags): { maxLoras: number; maxRank: number; maxCpuLoras: number } {
  const maxLoras = flags.number("--max-loras") ?? 1;
  const maxRank = flags.number("--max-lora-rank") ?? 16;
  const ranks = [1, 8, 16, 32, 64, 128, 256, 320, 512];
  if (!ranks.includes(maxRank)) {
    throw new UsageError(
      `vllm: error: argument --max-lora-rank: invalid choice: ${maxRank} (choose from ${ranks.join(", ")})`,
    );
  }
  return { maxLoras, maxRank, maxCpuLoras: flags.number("--max-cpu-loras") ?? maxLoras };
}

/** `name=path`, or JSON with both. */
function adapterOf(text: string): [name: string, path: string] {
  const [name = "", path] = text.split("=", 2);
  if (!text.startsWith("{") && path !== undefined) return [name, path];
  const parsed = loraModule.safeParse(JSON.parse(text));
  if (!parsed.success) throw new UsageError(`vllm: error: argument --lora-modules: invalid value: ${text}`);
  return [parsed.data.name, parsed.data.path];
}

/** The key guards `/v1` alone, as vLLM's does. */
function guard(app: Hono<NodeEnv>, apiKey: string): void {
  app.use("/v1/*", async (c, next) => {
    if (c.req.header("authorization") !== `Bearer ${apiKey}`) return c.json({ error: "Unauthorized" }, 401);
    return await next();
  });
}

function addStatus(app: Hono<NodeEnv>, engine: SimEngine): void {
  const health = (): Response => new Response(null, { status: engine.state === "dead" ? 503 : 200 });
  app.get("/health", health);
  app.on(["GET", "POST"], "/ping", health);
  app.get("/version", (c) => c.json({ version: engine.options.version }));
  app.get("/load", (c) => c.json({ server_load: engine.batch.running.length + engine.batch.waiting.length }));
  app.get("/metrics", (c) => c.text(vllmMetrics(engine), 200, { "content-type": "text/plain; version=0.0.4" }));
  app.get("/v1/models", (c) => c.json({ object: "list", data: modelCards(engine) }));
}

function modelCards(engine: SimEngine): object[] {
  const { servedNames, modelPath } = engine.options;
  const card = { object: "model", created: Math.floor(engine.startedMs / 1_000), owned_by: "vllm" };
  const base = servedNames[0] ?? modelPath;
  return [
    ...servedNames.map((id) => ({
      id,
      ...card,
      root: modelPath,
      parent: null,
      max_model_len: engine.contextTokens,
      permission: [],
    })),
    ...[...engine.adapters.values()].map(({ name, path }) => ({
      id: name,
      ...card,
      root: path,
      parent: base,
      max_model_len: null,
      permission: [],
    })),
  ];
}

function addLora(app: Hono<NodeEnv>, engine: SimEngine): void {
  app.post("/v1/load_lora_adapter", async (c) => {
    const { lora_name: name, lora_path: path, load_inplace: inPlace } = await readJson(c, adapterBody);
    if (path === undefined) {
      throw new EngineError(400, "Both 'lora_name' and 'lora_path' must be provided.", { type: "InvalidUserInput" });
    }
    await engine.adapterDelay();
    engine.loadAdapter(name, path, inPlace);
    return c.text(`Success: LoRA adapter '${name}' added successfully.`);
  });
  app.post("/v1/unload_lora_adapter", async (c) => {
    const { lora_name: name } = await readJson(c, adapterBody);
    engine.unloadAdapter(name);
    return c.text(`Success: LoRA adapter '${name}' removed successfully.`);
  });
}

function addDevMode(app: Hono<NodeEnv>, engine: SimEngine): void {
  app.post("/sleep", async (c) => {
    await engine.sleep(Number(c.req.query("level") ?? 1));
    return c.body(null, 200);
  });
  app.post("/wake_up", async (c) => {
    const tags = z.array(tag).safeParse(c.req.queries("tags") ?? []);
    if (!tags.success) throw new EngineError(500, "unknown tag");
    await engine.wakeUp(tags.data);
    return c.body(null, 200);
  });
  app.get("/is_sleeping", (c) => c.json({ is_sleeping: engine.asleep !== null }));
  app.post("/reset_prefix_cache", (c) => {
    engine.pool.forget();
    return c.body(null, 200);
  });
  app.post("/collective_rpc", async (c) => {
    const { method } = await readJson(c, rpcBody);
    if (method !== "reload_weights") throw new EngineError(500, `'Worker' object has no attribute '${method}'`);
    await engine.reloadWeights();
    return c.json({ results: [null] });
  });
  app.get("/server_info", (c) => c.json({ vllm_config: engine.options }));
}
