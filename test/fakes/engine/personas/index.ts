import { llamacpp } from "./llamacpp.ts";
import type { Persona } from "./persona.ts";
import { triton } from "./triton.ts";
import { trtllm } from "./trtllm.ts";
import { vllm } from "./vllm.ts";

/** The engines that the simulator can play. */
export const personas = { vllm, triton, trtllm, llamacpp } satisfies Record<string, Persona>;
export type PersonaName = keyof typeof personas;

/** Whether the simulator can play this engine. */
export function isPersona(name: string): name is PersonaName {
  return Object.hasOwn(personas, name);
}
