import type { Context } from "hono";
import type { NodeEnv } from "../../lib/serve.ts";
import type { Engine } from "../engine.ts";
import { engineVersion } from "../version.ts";

/** `GET /health`: 200 while the process lives. */
export function health(c: Context<NodeEnv>): Response {
  return c.json({ status: "ok" });
}

/** `GET /ready`: 200 when requests are taken, 503 while loading or draining. */
export function ready(c: Context<NodeEnv>, engine: Engine): Response {
  engine.serving();
  return c.json({ status: "ready", model: engine.options.servedModelName });
}

/** `GET /metrics`, for Prometheus. */
export async function metrics(c: Context<NodeEnv>, engine: Engine): Promise<Response> {
  const { running, waiting, kvUsage, usage } = await load(engine);
  const text = await engine.metrics.text({ running, waiting, kvUsage, kvTokens: usage.tokenCapacity });
  return c.body(text, 200, { "content-type": engine.metrics.contentType });
}

/** `GET /stats`, for people: what is served, on what, and how busy it is. Bytes, tokens, and tokens per second. */
export async function stats(c: Context<NodeEnv>, engine: Engine): Promise<Response> {
  const { options, totals, loaded, gate } = engine;
  const { running, waiting, usage } = await load(engine);
  const { rss, external } = process.memoryUsage();
  return c.json({
    version: engineVersion,
    state: engine.state,
    uptime_seconds: Math.round(process.uptime()),
    model: {
      id: options.servedModelName,
      parameters: loaded?.parameters ?? null,
      architecture: loaded?.model.architecture ?? null,
      size_bytes: loaded?.model.size ?? null,
      context_tokens: loaded?.contextTokens ?? null,
      adapters: loaded?.contexts.adapterNames ?? [],
      tool_format: loaded?.toolFormat?.name ?? null,
    },
    requests: { running, waiting, max_concurrent: gate.limits.concurrent, max_queue: gate.limits.queue },
    slots: { busy: usage.busy, total: usage.sequences, kv_tokens: usage.heldTokens, kv_capacity: usage.tokenCapacity },
    tokens: {
      prompt: totals.promptTokens,
      prompt_cached: totals.cachedTokens,
      generated: totals.generatedTokens,
      generated_per_second: Math.round(totals.tokensPerSecond(performance.now()) * 10) / 10,
    },
    memory: {
      resident_bytes: rss,
      external_bytes: external,
      model: loaded?.model.memoryUsage ?? null,
      loading: options.memory,
    },
    gpu: loaded?.llama.gpu ?? null,
    gpu_layers: loaded?.model.gpuLayers ?? null,
    threads: loaded?.threads ?? null,
  });
}

async function load(engine: Engine) {
  const usage = (await engine.loaded?.contexts.usage()) ?? { busy: 0, sequences: 0, heldTokens: 0, tokenCapacity: 0 };
  const kvUsage = usage.tokenCapacity === 0 ? 0 : usage.heldTokens / usage.tokenCapacity;
  return { ...engine.demand, usage, kvUsage };
}
