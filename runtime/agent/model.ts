import type { EngineSpec } from "../contracts/engine.ts";
import type { LoadProgress, ModelReport } from "../contracts/agent.ts";
import type { ModelSpec, ModelState, Tier } from "../contracts/model.ts";
import type { RunningEngine } from "./supervisor.ts";

/** What an agent knows of one model. Only the lifecycle changes it. */
export interface ModelRecord {
  readonly id: string;
  spec: ModelSpec;
  engineSpec: EngineSpec;
  state: ModelState;
  tier: Tier;
  /** Why the state is FAILED, or why the engine is gone. */
  reason: string | null;
  engine: RunningEngine | null;
  /** Requests that the engine is working on. A model in use is never unloaded. */
  running: number;
  /** Times that the engine ended by itself. */
  crashes: number;
  sizeBytes: number;
  progress: LoadProgress | null;
  readonly measuredMs: { download: number | null; load: number | null };
  /** The load under way; whoever asks meanwhile waits for the same one. */
  loading: Promise<void> | null;
  readonly listeners: Set<(progress: LoadProgress) => void>;
}

/** A model that nobody has loaded yet. */
export function newRecord(spec: ModelSpec, engineSpec: EngineSpec): ModelRecord {
  return {
    id: spec.id,
    spec,
    engineSpec,
    state: "UNLOADED",
    tier: "REMOTE",
    reason: null,
    engine: null,
    running: 0,
    crashes: 0,
    sizeBytes: 0,
    progress: null,
    measuredMs: { download: null, load: null },
    loading: null,
    listeners: new Set(),
  };
}

/** The part of a heartbeat that speaks of this model. */
export function reportOf(record: ModelRecord, endpointUrl: string): ModelReport {
  return {
    model_id: record.id,
    cache_state: record.state,
    cache_level: record.tier,
    reason: record.reason,
    inference_endpoint_url: endpointUrl,
    running: record.running,
    size_bytes: record.sizeBytes,
    progress: record.progress,
    measured_ms: record.measuredMs,
  };
}
