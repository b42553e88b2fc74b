import { z } from "zod";
import { engineSpec } from "./engine.ts";
import { modelId, modelSpec, modelStates, tiers } from "./model.ts";

/*
 * The agent protocol: the gateway is the client. Every call carries `Authorization: Bearer <agent token>`.
 * Requests are strict; answers are read loosely, so that a newer agent may say more than an older gateway knows.
 */

/** Body of `POST /load_model`: fetch, verify, place, launch. Idempotent. */
export const loadModelRequest = z.strictObject({
  model_id: modelId,
  model: modelSpec,
  engine: engineSpec,
  /** Answer with a JSON line per progress event, and a last line with the result or the error. */
  stream: z.boolean().default(false),
});

/** How far a load is. Bytes are 0 for phases that move none. */
export const loadProgress = z.object({
  model_id: modelId,
  phase: z.enum(["download", "verify", "load"]),
  bytes_done: z.number(),
  bytes_total: z.number(),
  bytes_per_second: z.number(),
  /** Seconds until this phase ends; null when nothing is known yet. */
  eta_seconds: z.number().nullable(),
});

/** Answer of `POST /load_model`. */
export const loadModelResult = z.object({
  status: z.enum(["loaded", "already_loaded"]),
  model_id: modelId,
  /** Append an engine path such as `/v1/chat/completions`. The only way in from outside the node. */
  inference_endpoint_url: z.url(),
  cache_state: z.enum(modelStates),
});

/** A line of a streamed load. */
export const loadEvent = z.discriminatedUnion("type", [
  z.object({ type: z.literal("progress"), progress: loadProgress }),
  z.object({ type: z.literal("result"), result: loadModelResult }),
  z.object({ type: z.literal("error"), error: z.unknown() }),
]);

/** Body of `POST /unload_model`: down to a tier. */
export const unloadModelRequest = z.strictObject({
  model_id: modelId,
  to: z.enum(["DRAM_CACHED", "NVME_CACHED", "REMOTE"]).default("NVME_CACHED"),
});

/** Answer of `POST /unload_model`. */
export const unloadModelResult = z.object({
  status: z.enum(["unloaded", "not_loaded"]),
  model_id: modelId,
  cache_level: z.enum(tiers),
});

/** States of an agent. */
export const agentStates = ["IDLE", "LOADING_MODEL", "INFERRING", "DRAINING", "DEGRADED"] as const;

const gpu = z.object({
  index: z.int(),
  name: z.string(),
  memory_total_bytes: z.number(),
  memory_used_bytes: z.number(),
});

/** What an agent says of one model. */
export const modelReport = z.object({
  model_id: modelId,
  cache_state: z.enum(modelStates),
  cache_level: z.enum(tiers),
  /** Why the state is FAILED; null otherwise. */
  reason: z.string().nullable(),
  inference_endpoint_url: z.url(),
  running: z.int(),
  size_bytes: z.number(),
  progress: loadProgress.nullable(),
  /** Measured milliseconds of the last transition of each kind; null when it never happened. */
  measured_ms: z.object({
    download: z.number().nullable(),
    load: z.number().nullable(),
  }),
});

/** Answer of `POST /heartbeat`. */
export const heartbeat = z.object({
  agent_id: z.string(),
  state: z.enum(agentStates),
  gpus: z.array(gpu),
  memory: z.object({ total_bytes: z.number(), free_bytes: z.number() }),
  disk: z.object({ total_bytes: z.number(), free_bytes: z.number(), cache_bytes: z.number() }),
  engines: z.array(z.object({ model_id: modelId, kind: z.string(), pid: z.int().nullable(), restarts: z.int() })),
  models: z.array(modelReport),
});

export type LoadModelRequest = z.infer<typeof loadModelRequest>;
export type LoadProgress = z.infer<typeof loadProgress>;
export type LoadModelResult = z.infer<typeof loadModelResult>;
export type LoadEvent = z.infer<typeof loadEvent>;
export type UnloadModelRequest = z.infer<typeof unloadModelRequest>;
export type UnloadModelResult = z.infer<typeof unloadModelResult>;
export type AgentState = (typeof agentStates)[number];
export type ModelReport = z.infer<typeof modelReport>;
export type Heartbeat = z.infer<typeof heartbeat>;
