import type { ProfileName } from "./cost.ts";
import type { Settings } from "./faults.ts";
import type { Clock } from "./loop.ts";

/** What an engine is started with, as its persona read it from the command line. */
export interface EngineOptions {
  readonly modelPath: string;
  /** Names that requests may use; the first is told. */
  readonly servedNames: readonly string[];
  /** What a name that is not served means: vLLM's 404, Triton's 400, or nothing at all to llama-server. */
  readonly unknownName: 404 | 400 | "ignored";
  /** Adapters that apply to every request, as their paths; part of what the weights are. */
  readonly mergedAdapters: readonly string[];
  readonly version: string;
  readonly blockTokens: number;
  readonly maxNumSeqs: number;
  readonly maxNumBatchedTokens: number;
  /** Null: as many as the KV cache holds. */
  readonly maxModelLen: number | null;
  readonly prefixCaching: boolean;
  /** Overrides what the settings and the profile say. */
  readonly kvBlocks: number | null;
  /** Null: started without LoRA. */
  readonly lora: { readonly maxLoras: number; readonly maxRank: number; readonly maxCpuLoras: number } | null;
  /** Adapters that are there from the start: name -> path. */
  readonly adapters: Readonly<Record<string, string>>;
  /** Whether `--enable-sleep-mode` was given. */
  readonly sleepMode: boolean;
  readonly streamInterval: number;
}

/** What surrounds an engine: simulated time, faults, and the process that it lives in. */
export interface EngineHost {
  readonly clock: Clock;
  readonly profile: ProfileName;
  readonly settings: Settings;
  /** Where counter files lie. */
  readonly counterFolder: string;
  /** Ends the engine as SIGKILL does. */
  kill(): void;
  /** Ends the engine with exit code 1, as a fatal error does. */
  fail(): void;
}
