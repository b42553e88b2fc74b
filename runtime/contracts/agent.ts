import { z } from "zod";
import { engineSpec } from "./engine.ts";
import { adapterName, adapterSpec, modelId, modelSpec, modelStates, tiers } from "./model.ts";

/*
 * The agent protocol: the gateway is the client. Every call carries `Authorization: Bearer <agent token>`.
 * Requests are strict; answers are read loosely, so that a newer agent may say more than an older gateway knows.
 */

/** When an agent takes a model down by itself, counted from its last request. Null: never. */
export const idlePolicy = z.strictObject({
  /** GPU_RESIDENT -> DRAM_CACHED; passed over by engines that cannot sleep. */
  sleep_after_seconds: z.number().positive().max(31_536_000).nullable().default(null),
  /** -> NVME_CACHED. */
  unload_after_seconds: z.number().positive().max(31_536_000).nullable().default(null),
});

/** Body of `POST /load_model`: fetch, verify, place, launch. Idempotent. */
export const loadModelRequest = z.strictObject({
  model_id: modelId,
  model: modelSpec,
  engine: engineSpec,
  /** Absent: as it was, or never. */
  idle: idlePolicy.optional(),
  /** Keep the files on disk whatever else needs the room. Absent: as it was. */
  pinned: z.boolean().optional(),
  /** Answer with a JSON line per progress event, and a last line with the result or the error. */
  stream: z.boolean().default(false),
});

/** Phases of a load, in order. `wake` stands in for all others when the engine was asleep. */
export const loadPhases = ["download", "verify", "load", "wake", "prove", "adapters"] as const;

/** How far a load is. Bytes are 0 for phases that move none. */
export const loadProgress = z.object({
  model_id: modelId,
  phase: z.enum(loadPhases),
  bytes_done: z.number(),
  bytes_total: z.number(),
  bytes_per_second: z.number(),
  /** Seconds until this phase ends, from its rate or from the last time it ran; null when nothing is known yet. */
  eta_seconds: z.number().nullable(),
});

/** Answer of `POST /load_model`. */
export const loadModelResult = z.object({
  status: z.enum(["loaded", "woken", "already_loaded"]),
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
  status: z.enum(["unloaded", "asleep", "not_loaded"]),
  model_id: modelId,
  cache_level: z.enum(tiers),
});

/** Body of `POST /load_adapter`: fetch, check, load into the engine of a model that is READY. Idempotent. */
export const loadAdapterRequest = z.strictObject({ model_id: modelId, adapter: adapterSpec });

/** Answer of `POST /load_adapter`. */
export const loadAdapterResult = z.object({
  status: z.enum(["loaded", "already_loaded"]),
  model_id: modelId,
  adapter: z.string(),
  /** Adapters that had to leave, least recently used first. */
  evicted: z.array(z.string()),
});

/** Body of `POST /unload_adapter`. */
export const unloadAdapterRequest = z.strictObject({ model_id: modelId, adapter: adapterName });

/** Answer of `POST /unload_adapter`. */
export const unloadAdapterResult = z.object({
  status: z.enum(["unloaded", "not_loaded"]),
  model_id: modelId,
  adapter: z.string(),
});

/** Body of `POST /drain`. */
export const drainRequest = z.strictObject({
  /** How long running requests may take; default: the agent's own. */
  deadline_seconds: z.number().min(0).max(86_400).optional(),
});

/** Answer of `POST /drain`: `busy` when requests still ran at the deadline. Engines are stopped either way. */
export const drainResult = z.object({ status: z.enum(["drained", "busy"]), running: z.int() });

/** Body of `POST /heartbeat`; may be left out. */
export const heartbeatRequest = z.strictObject({
  /** The `cache.revision` that the caller has seen: while it is the same, `cache.entries` is null. */
  known_cache_revision: z.string().max(100).optional(),
});

/** States of an agent. */
export const agentStates = ["IDLE", "LOADING_MODEL", "INFERRING", "DRAINING", "DEGRADED"] as const;

const gpu = z.object({
  index: z.int(),
  uuid: z.string(),
  name: z.string(),
  memory_total_bytes: z.number(),
  /** As the driver measures it, all processes together. */
  memory_used_bytes: z.number(),
  /** Promised to models of this agent. */
  memory_reserved_bytes: z.number(),
  /** 0 to 1; null when the driver does not say. */
  utilization: z.number().nullable(),
  nvlink_peers: z.array(z.int()),
});

/** What the engine's own metrics say. Null: it has no such signal, or has not answered yet. */
export const engineLoad = z.object({
  running: z.number().nullable(),
  waiting: z.number().nullable(),
  /** Share of the KV cache in use, 0 to 1. */
  kv_usage: z.number().nullable(),
  /** Share of prompt tokens found in the prefix cache since the engine started, 0 to 1. */
  kv_hit_rate: z.number().nullable(),
  /** Tokens that fit in the KV cache. Agents of versions before do not say. */
  kv_tokens: z.number().nullable().default(null),
  /** Signals that this engine should have and its page has not: a renamed metric. Never read them as 0. */
  missing_signals: z.array(z.string()),
});

/** States of an adapter. */
export const adapterStates = ["LOADING", "READY", "WAITING", "FAILED"] as const;

/** What an agent says of one model. */
export const modelReport = z.object({
  model_id: modelId,
  cache_state: z.enum(modelStates),
  cache_level: z.enum(tiers),
  /** Why the state is FAILED; null otherwise. */
  reason: z.string().nullable(),
  inference_endpoint_url: z.url(),
  /** Requests that this agent relays now. */
  running: z.int(),
  /** Seconds since the last request ended; 0 while one runs. */
  idle_seconds: z.number(),
  size_bytes: z.number(),
  adapters: z.array(z.object({ name: z.string(), state: z.enum(adapterStates), reason: z.string().nullable() })),
  engine: engineLoad.nullable(),
  progress: loadProgress.nullable(),
  /** Measured milliseconds of the last transition of each kind; null when it never happened. */
  measured_ms: z.object({
    download: z.number().nullable(),
    load: z.number().nullable(),
    sleep: z.number().nullable(),
    wake: z.number().nullable(),
    unload: z.number().nullable(),
    /** To fetch, check and load an adapter. Agents of versions before do not say. */
    adapter: z.number().nullable().default(null),
  }),
});

/** An entry of the node's disk cache. */
export const cacheEntry = z.object({
  model_ids: z.array(z.string()),
  size_bytes: z.number(),
  pinned: z.boolean(),
});

/** Answer of `POST /heartbeat`. */
export const heartbeat = z.object({
  agent_id: z.string(),
  state: z.enum(agentStates),
  /** Why the state is DEGRADED, or until when the node drains; null otherwise. */
  reason: z.string().nullable(),
  gpus: z.array(gpu),
  memory: z.object({ total_bytes: z.number(), free_bytes: z.number() }),
  disk: z.object({
    total_bytes: z.number(),
    free_bytes: z.number(),
    cache_bytes: z.number(),
    /** Bytes that the cache may take; null when the disk is the only limit. */
    cache_budget_bytes: z.number().nullable(),
  }),
  cache: z.object({ revision: z.string(), entries: z.array(cacheEntry).nullable() }),
  engines: z.array(
    z.object({
      model_id: modelId,
      kind: z.string(),
      version: z.string().nullable(),
      pid: z.int().nullable(),
      gpus: z.array(z.int()),
      /** Reserved on each of them. */
      gpu_memory_bytes: z.number(),
      restarts: z.int(),
    }),
  ),
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
export type IdlePolicy = z.infer<typeof idlePolicy>;
export type LoadPhase = (typeof loadPhases)[number];
export type LoadAdapterRequest = z.infer<typeof loadAdapterRequest>;
export type LoadAdapterResult = z.infer<typeof loadAdapterResult>;
export type UnloadAdapterRequest = z.infer<typeof unloadAdapterRequest>;
export type UnloadAdapterResult = z.infer<typeof unloadAdapterResult>;
export type DrainRequest = z.infer<typeof drainRequest>;
export type DrainResult = z.infer<typeof drainResult>;
export type HeartbeatRequest = z.infer<typeof heartbeatRequest>;
export type EngineLoad = z.infer<typeof engineLoad>;
export type AdapterState = (typeof adapterStates)[number];
export type MeasuredMs = ModelReport["measured_ms"];
