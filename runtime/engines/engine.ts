import type { EngineCapabilities, EngineSpec } from "../contracts/engine.ts";
import type { ModelFormat } from "../contracts/model.ts";

/** JSON as it is sent to an engine. */
export type Json = string | number | boolean | null | readonly Json[] | { readonly [key: string]: Json };

/** A program with its first arguments. */
export type Command = readonly [string, ...string[]];

/** `[0, 16, 0]` for 0.16.0. */
export type Version = readonly [number, number, number];

/** Loopback ports that the agent reserved for one engine. An engine uses `api`, and the others if it has them. */
export interface EnginePorts {
  readonly api: number;
  /** Model control, where it has a port of its own. */
  readonly admin: number;
  /** Prometheus, where it has a port of its own. */
  readonly metrics: number;
}

/** This node's part in a replica over several nodes (LeaderWorkerSet). */
export interface EngineGroup {
  /** Name or address of the leader (`LWS_LEADER_ADDRESS`). */
  readonly leaderAddress: string;
  /** Nodes of the replica (`LWS_GROUP_SIZE`). */
  readonly size: number;
  /** 0 for the leader (`LWS_WORKER_INDEX`). */
  readonly index: number;
}

/** Where an engine runs: what its agent knows and the spec does not. */
export interface EnginePlace {
  /** The program to run: the engine's own `command`, or what the operator put in its place. */
  readonly command: Command;
  /** What `--version` of that program said; null for an engine that comes with Penstock. */
  readonly version: Version | null;
  /** The model's file or folder on local disk; a blob URI when the engine streams it from there. */
  readonly modelPath: string;
  /** Name that clients use for the model. */
  readonly servedName: string;
  readonly ports: EnginePorts;
  /** Adapters on local disk by name, to be there from the start. */
  readonly adapters: Readonly<Record<string, string>>;
  /** GPU indices that the agent reserved. Empty on a node without GPUs. */
  readonly gpus: readonly number[];
  /** Folder of this engine alone, empty at the start: for `files` and for what the engine writes. */
  readonly workDirectory: string;
  /** Folder that outlives engines, for compiled kernels. */
  readonly compileCacheDirectory: string;
  /** Null for a replica on one node. */
  readonly group: EngineGroup | null;
  readonly logLevel: string;
}

/** How an agent starts an engine process and looks at it. */
export interface EngineLaunch {
  /** Programs that run to their end, in order, before the engine starts. */
  readonly prelude: readonly Command[];
  readonly command: Command;
  readonly env: Readonly<Record<string, string>>;
  /** Files to write before the start: path relative to `workDirectory` -> content. */
  readonly files: Readonly<Record<string, string>>;
  /**
   * Answers 200 as soon as the process can take calls. Null for a worker of a replica over several nodes, which is ready
   * when its leader is.
   */
  readonly ready: EngineCall | null;
  /** Answers 200 while the process is alive and not stuck. */
  readonly health: EngineCall | null;
  /** Calls that must succeed, in order, after `ready`: an explicit model load. */
  readonly afterReady: readonly EngineCall[];
  /**
   * How the process learns that its agent has died: `stdin`: it watches its standard input by itself;
   * `wrapper`: the agent puts a small shell in front that does so for the whole process group.
   */
  readonly lifeline: "stdin" | "wrapper";
}

/** One HTTP call to an engine. Any 2xx is success. */
export interface EngineCall {
  readonly method: "GET" | "POST";
  /** Default `api`. */
  readonly port?: keyof EnginePorts;
  readonly path: string;
  readonly body?: Json;
}

/** What an engine's metrics are asked for. Cumulative counters end in `Total`. */
export const engineSignals = [
  "running",
  "waiting",
  "kvUsage",
  "prefixQueriesTotal",
  "prefixHitsTotal",
  "promptTokensTotal",
  "generationTokensTotal",
] as const;
export type EngineSignal = (typeof engineSignals)[number];

/** A series of a Prometheus page. Several series that match are added up. */
export interface MetricName {
  readonly name: string;
  readonly labels?: Readonly<Record<string, string>>;
}

/** A sample of a Prometheus page. */
export interface Sample {
  readonly value: number;
  readonly labels: ReadonlyMap<string, string>;
}

/** Samples of the series with this name. */
export type Series = (name: string) => readonly Sample[];

/** Where an engine's metrics are, and what it calls each signal: newest name first, older ones behind. */
export interface EngineMetrics {
  readonly call: EngineCall;
  readonly names: Readonly<Record<EngineSignal, readonly MetricName[]>>;
  /** Tokens that fit in the KV cache, from the page or from the spec; null or no number where it is not told. */
  kvTokens(series: Series): number | null;
}

/** GPUs that a spec takes on each node. */
export interface GpuNeed {
  readonly count: number;
  /** Part of each GPU's memory (0 to 1), or bytes on each GPU. */
  readonly memory: { readonly fraction: number } | { readonly bytes: number };
  /** Whether the GPUs must be connected by NVLink. */
  readonly nvlink: boolean;
  /** Bytes on each GPU that a sleeping engine keeps. */
  readonly asleepBytes: number;
}

/** An adapter as an engine is told of it. */
export interface EngineAdapter {
  /** The adapter's own name; clients call it `servedName:name`. */
  readonly name: string;
  readonly servedName: string;
  /** File or folder on local disk. */
  readonly path: string;
}

/** A deterministic request that shows whether an engine computes what it computed before. */
export interface GoldenProbe {
  /** `completion`: `choices[0].text` and `logprobs.token_logprobs`. `embedding`: `data[0].embedding`. */
  readonly kind: "completion" | "embedding";
  readonly call: EngineCall;
}

/** Limits of an engine with a given spec. */
export interface AdapterLimits {
  /** Adapters that can be loaded at once. */
  readonly count: number;
  /** Highest LoRA rank; null when the engine takes any. */
  readonly rank: number | null;
}

/** A pure description of one engine: spec and place -> process and calls. No I/O. */
export interface Engine<Spec extends EngineSpec> {
  /** What runs unless the operator names another program. */
  readonly command: Command;
  /** Arguments that make `command` print its version, the one that Penstock was written against, and the oldest it takes. */
  readonly version: {
    readonly argv: readonly string[];
    readonly pinned: Version;
    readonly minimum: Version;
  } | null;
  readonly capabilities: EngineCapabilities;
  /** Where its metrics are, and what they are called. A signal that it does not publish has no name. */
  metrics(spec: Spec): EngineMetrics;
  /** Formats of models that it reads with this spec. */
  formats(spec: Spec): readonly ModelFormat[];
  /** Why this spec cannot work, a sentence each with the remedy. Empty when it can. */
  refusals(spec: Spec): readonly string[];
  /** What it takes of the GPUs; null when it runs without. `weightsBytes` is the size of the model's files. */
  gpus(spec: Spec, weightsBytes: number): GpuNeed | null;
  launch(spec: Spec, place: EnginePlace): EngineLaunch;
  /** Whether the engine itself reads a model of this source from the blob store, when it is not on disk yet. */
  streams(spec: Spec, source: string): boolean;
  adapterLimits(spec: Spec): AdapterLimits;
  /**
   * Calls that put the engine to sleep, in order; null when this spec cannot sleep. Requests must have ended before.
   * Triton sleeps by unloading the model, so it must be told which.
   */
  sleep(spec: Spec, servedName: string): readonly EngineCall[] | null;
  /** Calls that wake it, in the order that this engine needs. */
  wake(spec: Spec, servedName: string): readonly EngineCall[];
  loadAdapter(adapter: EngineAdapter): EngineCall;
  unloadAdapter(adapter: EngineAdapter): EngineCall;
  /** Probes to try in order: the first that the engine does not refuse counts. `model`: served name, or `servedName:adapter`. */
  golden(spec: Spec, model: string): readonly GoldenProbe[];
}
