import type { Heartbeat, ModelReport } from "../../runtime/contracts/agent.ts";
import { model } from "./gateway-messages.ts";

/** What an agent at `url` says whose engine is ready, and maybe what that engine says. */
export function heartbeat(url: string, engine: ModelReport["engine"] = null): string {
  const beat: Heartbeat = {
    agent_id: "bench",
    state: "IDLE",
    reason: null,
    gpus: [],
    memory: { total_bytes: 1, free_bytes: 1 },
    disk: { total_bytes: 1, free_bytes: 1, cache_bytes: 0, cache_budget_bytes: null },
    cache: { revision: "0", entries: null },
    engines: [],
    models: [
      {
        model_id: model,
        cache_state: "READY",
        cache_level: "GPU_RESIDENT",
        reason: null,
        inference_endpoint_url: `${url}/infer/${model}`,
        running: 0,
        idle_seconds: 0,
        size_bytes: 0,
        adapters: [],
        engine,
        progress: null,
        measured_ms: { download: null, load: null, sleep: null, wake: null, unload: null, adapter: null },
      },
    ],
  };
  return JSON.stringify(beat);
}
