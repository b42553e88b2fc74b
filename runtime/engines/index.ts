import type { EngineKind, EngineLaunch, EngineSpec } from "../contracts/engine.ts";
import { embedded } from "./embedded.ts";
import type { Engine, EnginePlace } from "./engine.ts";

/** The engine registry: a new engine is one file and one line here. */
export const engines = { embedded } satisfies { [Kind in EngineKind]: Engine<Extract<EngineSpec, { kind: Kind }>> };

/** How to start the engine that `spec` names. */
export function engineLaunch(spec: EngineSpec, place: EnginePlace): EngineLaunch {
  return engines[spec.kind].launch(spec, place);
}
