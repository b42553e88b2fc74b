import type { EngineCapabilities, EngineLaunch, EngineSpec } from "../contracts/engine.ts";

/** Where an engine runs: what its agent knows and the spec does not. */
export interface EnginePlace {
  /** The model's file or folder on local disk. */
  readonly modelPath: string;
  /** Name that clients use for the model. */
  readonly servedName: string;
  /** Loopback port that the agent reserved. */
  readonly port: number;
  /** Adapters on local disk by name. */
  readonly adapters: Readonly<Record<string, string>>;
  readonly logLevel: string;
}

/** A pure description of one engine: spec and place -> process. No I/O. */
export interface Engine<Spec extends EngineSpec> {
  readonly capabilities: EngineCapabilities;
  launch(spec: Spec, place: EnginePlace): EngineLaunch;
}
