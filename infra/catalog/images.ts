import type { EngineKind, EngineSpec } from "../../runtime/contracts/engine.ts";

/** Version of the images that `images/` builds, and of package.json; a release moves it. */
export const imageVersion = "0.1.0";

/** Images of the agent, one per engine: the agent with that engine's own image below it. */
const agentImages = {
  embedded: "penstock-agent-embedded",
  llamacpp: "penstock-agent-llamacpp",
  vllm: "penstock-agent-vllm",
  triton: "penstock-agent-triton",
  trtllm: "penstock-agent-trtllm",
} as const satisfies Record<EngineKind, string>;

/** Triton with the back end for engines that TensorRT-LLM built: NVIDIA has no image with both back ends. */
const tritonForEngines = "penstock-agent-triton-trtllm";

/** Image of the agent that runs an engine. */
export function agentImageOf(engine: EngineSpec): string {
  return engine.kind === "triton" && engine.backend === "tensorrtllm" ? tritonForEngines : agentImages[engine.kind];
}

/** All images that a stack may name. */
export const allImages = (): string[] => [gatewayImage, ...Object.values(agentImages), tritonForEngines];

/** Image of the gateway. */
export const gatewayImage = "penstock-gateway";

/**
 * GB to pull of each agent image, compressed: vLLM's own is 8 to 12 GB (KAITO), NVIDIA's serving images are larger.
 * They decide how long a fresh node takes.
 */
export const imageGB = {
  embedded: 1,
  llamacpp: 3,
  vllm: 10,
  triton: 15,
  trtllm: 15,
} as const satisfies Record<EngineKind, number>;
