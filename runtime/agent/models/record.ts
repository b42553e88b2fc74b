import type {
  AdapterState,
  EngineLoad,
  IdlePolicy,
  LoadProgress,
  MeasuredMs,
  ModelReport,
} from "../../contracts/agent.ts";
import type { EngineSpec } from "../../contracts/engine.ts";
import type { AdapterSpec, ModelSpec, ModelState, Tier } from "../../contracts/model.ts";
import type { Version } from "../../engines/engine.ts";
import type { GpuReservation } from "../gpus/slots.ts";
import type { RunningEngine } from "../supervisor/start.ts";
import { Backoff } from "./backoff.ts";
import type { Golden } from "./golden.ts";
import type { HeldFiles } from "./weights.ts";

/** An adapter that a model shall have. */
export interface AdapterRecord {
  readonly spec: AdapterSpec;
  state: AdapterState;
  /** Why the state is FAILED; null otherwise. */
  reason: string | null;
  /** Requests that use it now. */
  running: number;
  /** Another waits for its place: it takes no new requests. */
  leaving: boolean;
  /** On the monotonic clock. */
  lastUsedMs: number;
  golden: Golden | null;
  files: HeldFiles | null;
}

/** A change of tier under way. Transitions of one model run one after the other. */
export interface Transition {
  readonly kind: "up" | "down";
  readonly done: Promise<void>;
  cancel(reason: Error): void;
}

/** What an agent knows of one model. Only the rooms beside this file change it. */
export interface ModelRecord {
  readonly id: string;
  spec: ModelSpec;
  engineSpec: EngineSpec;
  idle: IdlePolicy;
  state: ModelState;
  tier: Tier;
  /** Why the state is FAILED, or why the engine is gone. */
  reason: string | null;
  engine: RunningEngine | null;
  version: Version | null;
  /** GPU memory of the engine; null without an engine, or on a node without GPUs. */
  gpus: GpuReservation | null;
  /** The files, in use as long as an engine may read them. */
  files: HeldFiles | null;
  sizeBytes: number;
  /** Requests that the engine is working on. A model in use is never unloaded. */
  running: number;
  /** On the monotonic clock: when the last request ended, or the model became ready. */
  lastUsedMs: number;
  /** Times that the engine ended by itself. */
  crashes: number;
  readonly failures: Backoff;
  readonly adapters: Map<string, AdapterRecord>;
  /** What the engine answered to the golden prompt when it first served these files. */
  golden: Golden | null;
  load: EngineLoad | null;
  progress: LoadProgress | null;
  readonly measuredMs: MeasuredMs;
  transition: Transition | null;
  readonly listeners: Set<(progress: LoadProgress) => void>;
}

const never: IdlePolicy = { sleep_after_seconds: null, unload_after_seconds: null };

/** A model that nobody has loaded yet. */
export function newRecord(spec: ModelSpec, engineSpec: EngineSpec): ModelRecord {
  return {
    id: spec.id,
    spec,
    engineSpec,
    idle: never,
    state: "UNLOADED",
    tier: "REMOTE",
    reason: null,
    engine: null,
    version: null,
    gpus: null,
    files: null,
    sizeBytes: 0,
    running: 0,
    lastUsedMs: performance.now(),
    crashes: 0,
    failures: new Backoff(),
    adapters: new Map(),
    golden: null,
    load: null,
    progress: null,
    measuredMs: { download: null, load: null, sleep: null, wake: null, unload: null, adapter: null },
    transition: null,
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
    idle_seconds: record.running > 0 ? 0 : Math.round((performance.now() - record.lastUsedMs) / 1_000),
    size_bytes: record.sizeBytes,
    adapters: [...record.adapters.values()].map(({ spec, state, reason }) => ({ name: spec.name, state, reason })),
    engine: record.load,
    progress: record.progress,
    measured_ms: record.measuredMs,
  };
}

/** Tells how far a load is, to whoever waits for it. */
export function report(record: ModelRecord, progress: Omit<LoadProgress, "model_id">): void {
  record.progress = { model_id: record.id, ...progress };
  for (const listener of record.listeners) listener(record.progress);
}

/** Tells that a phase begins that moves no bytes; the estimate is how long it took the last time. */
export function reportPhase(record: ModelRecord, phase: LoadProgress["phase"], lastMs: number | null): void {
  report(record, {
    phase,
    bytes_done: 0,
    bytes_total: 0,
    bytes_per_second: 0,
    eta_seconds: lastMs === null ? null : lastMs / 1_000,
  });
}
