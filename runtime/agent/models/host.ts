import type { EngineKind } from "../../contracts/engine.ts";
import type { Command, EngineGroup } from "../../engines/engine.ts";
import type { Logger } from "../../lib/log.ts";
import type { GpuSlots } from "../gpus/slots.ts";
import type { HealthOptions } from "../supervisor/health.ts";
import type { EngineVersions } from "../supervisor/version.ts";
import type { Weights } from "./weights.ts";

/** Programs that the operator put in place of the engines' own. */
export type EngineCommands = Readonly<Partial<Record<EngineKind, Command | undefined>>>;

/** What all models of an agent share. */
export interface ModelHost {
  readonly weights: Weights;
  readonly gpus: GpuSlots;
  readonly versions: EngineVersions;
  readonly engineCommands: EngineCommands;
  /** Environment of every engine. */
  readonly engineEnv: Readonly<Record<string, string>>;
  /** What an engine gets beside that when it reads the blob store itself. */
  readonly streamEnv: Readonly<Record<string, string>>;
  readonly engineLogLevel: string;
  /** Folder for what engines write: one of its own for each, and one for compiled kernels. */
  readonly stateDirectory: string;
  readonly readyTimeoutMs: number;
  /** How long an engine may take to stop before it is killed. */
  readonly stopTimeoutMs: number;
  readonly health: HealthOptions;
  /** Between two looks at the engines' metrics. */
  readonly scrapeIntervalMs: number;
  /** This node's part in a replica over several nodes. */
  readonly group: EngineGroup | null;
  /** Where the gateway reaches the engine of a model through this agent. */
  readonly endpointUrl: (modelId: string) => string;
  readonly log: Logger;
}
