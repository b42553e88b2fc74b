import { Hono } from "hono";
import { PenstockError } from "../contracts/errors.ts";
import { notFound, onError, requireBearer } from "../lib/http.ts";
import type { Logger } from "../lib/log.ts";
import type { NodeEnv } from "../lib/serve.ts";
import type { Engine } from "./engine.ts";
import { chat } from "./routes/chat.ts";
import { completions } from "./routes/completions.ts";
import { embeddings } from "./routes/embeddings.ts";
import { listModels, loadAdapter, showModel, unloadAdapter } from "./routes/models.ts";
import { health, metrics, ready, stats } from "./routes/status.ts";

/** Paths that answer only one method, for a 405 that says which. */
const postOnly = [
  "/v1/chat/completions",
  "/v1/completions",
  "/v1/embeddings",
  "/v1/load_lora_adapter",
  "/v1/unload_lora_adapter",
];

/** The engine's HTTP API. Probes and metrics are open; all else asks for the key when there is one. */
export function createApp(engine: Engine, log: Logger): Hono<NodeEnv> {
  const app = new Hono<NodeEnv>();
  app.onError(onError(log));
  app.notFound(notFound);
  app.get("/health", health);
  app.get("/ready", (c) => ready(c, engine));
  app.get("/metrics", (c) => metrics(c, engine));
  app.get("/stats", (c) => stats(c, engine));
  if (engine.options.apiKey !== undefined) app.use("/v1/*", requireBearer(engine.options.apiKey));
  app.post("/v1/chat/completions", (c) => chat(c, { engine, log }));
  app.post("/v1/completions", (c) => completions(c, { engine, log }));
  app.post("/v1/embeddings", (c) => embeddings(c, engine));
  app.get("/v1/models", (c) => listModels(c, engine));
  app.get("/v1/models/*", (c) => showModel(c, engine));
  app.post("/v1/load_lora_adapter", (c) => loadAdapter(c, engine));
  app.post("/v1/unload_lora_adapter", (c) => unloadAdapter(c, engine));
  for (const path of postOnly) {
    app.all(path, () => {
      throw new PenstockError("method_not_allowed", `${path} takes POST.`);
    });
  }
  return app;
}
