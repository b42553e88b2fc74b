import type { EngineKind, EngineSpec, SpecOf } from "../contracts/engine.ts";
import { embedded } from "./embedded.ts";
import type { Engine } from "./engine.ts";
import { llamacpp } from "./llamacpp.ts";
import { triton } from "./triton.ts";
import { trtllm } from "./trtllm.ts";
import { vllm } from "./vllm.ts";

/** The engine registry: a new engine is one file and one line here. */
export const engines = { embedded, llamacpp, vllm, triton, trtllm } satisfies {
  [Kind in EngineKind]: Engine<SpecOf<Kind>>;
};

/** The engine that `spec` names. Its calls take specs of that same kind only. */
export function engineOf(spec: { readonly kind: EngineKind }): Engine<EngineSpec> {
  return engines[spec.kind];
}
