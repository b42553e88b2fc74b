import { capabilityOf, type GpuSize } from "../catalog/sizes.ts";
import type { StackEngine } from "../stack/engines.ts";
import type { ModelShape, WeightType } from "../stack/shape.ts";
import { engineMemory } from "./engine-memory.ts";

/**
 * Compute capability, times ten, that a format of weights needs: bf16 since Ampere, FP8 since Ada and Hopper, NVIDIA's FP4
 * on Blackwell alone; gpt-oss's MXFP4 runs on Hopper too; AWQ and GPTQ kernels since Turing.
 */
const needed = {
  fp32: 0,
  fp16: 70,
  bf16: 80,
  fp8: 89,
  int8: 75,
  int4: 75,
  fp4: 100,
  mxfp4: 90,
} as const satisfies Record<WeightType, number>;

/** Why the GPUs of a size cannot compute a model as it is stored, with the remedy; null when they can. */
export function capabilityProblem(engine: StackEngine, shape: ModelShape, size: GpuSize): string | null {
  // llama.cpp computes any of its formats on any GPU.
  if (engine.kind === "llamacpp" || engine.kind === "embedded") return null;
  const stored = engineMemory(engine, shape).quantized ?? shape.weights;
  const type = engine.kind === "vllm" && stored === "bf16" && engine.dtype === "float16" ? "fp16" : stored;
  if (capabilityOf(size) >= needed[type]) return null;
  const remedy = type === "bf16" && engine.kind === "vllm" ? "set the engine's dtype to float16, or " : "";
  return (
    `${type} weights need compute capability ${(needed[type] / 10).toFixed(1)}, and ${size.gpu.model} of ${size.name} ` +
    `has ${size.gpu.computeCapability}; ${remedy}use a newer GPU`
  );
}
