import type { IdlePolicy } from "../contracts/agent.ts";
import type { EngineSpec } from "../contracts/engine.ts";
import type { ModelSpec } from "../contracts/model.ts";
import type { ListenAddress } from "../lib/serve.ts";
import type { Aliases } from "./registry/catalog.ts";
import type { FleetOptions } from "./fleet/agents.ts";

/** A model that the gateway serves, and the engine that runs it. */
export interface ServedModel {
  readonly spec: ModelSpec;
  readonly engine: EngineSpec;
  /** The fleet whose agents serve it. */
  readonly fleet: string;
  /** Loaded when the gateway starts instead of at the first request. */
  readonly warm: boolean;
  /** When agents take it down by themselves. */
  readonly idle?: IdlePolicy;
  /** Never evicted for another model, and its files stay on disk. */
  readonly pinned?: boolean;
}

/** Bounds of held requests: those that wait for a model to load. */
export interface HoldLimits {
  readonly maxRequests: number;
  readonly maxBytes: number;
  readonly maxSeconds: number;
}

/** What a gateway is made of. */
export interface GatewayOptions {
  readonly listen: ListenAddress;
  readonly apiKey: string;
  readonly fleets: readonly FleetOptions[];
  /** Token that all agents ask for. */
  readonly agentToken: string;
  readonly models: readonly ServedModel[];
  /** Names that stand for several models, each as often as its weight says. */
  readonly aliases?: Aliases;
  readonly hold: HoldLimits;
  /** A body above this is refused. */
  readonly maxBodyBytes: number;
  /** How long the engine may take for a whole answer that does not stream, or for the first byte of one that does. */
  readonly firstByteTimeoutMs: number;
  readonly betweenBytesTimeoutMs: number;
  /** How long a stop waits for open requests. */
  readonly drainTimeoutMs: number;
}
