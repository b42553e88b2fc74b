import { z } from "zod";
import {
  embeddedEngine,
  llamacppEngine,
  tritonEngine,
  trtllmEngine,
  vllmEngine,
  type EngineSpec,
} from "../../runtime/contracts/engine.ts";

/** Left to the planner. */
export const auto = z.literal("auto");

/** Engines of a cloud stack: sizes may be left to the planner. */
export const cloudEngine = z.discriminatedUnion("kind", [
  embeddedEngine,
  llamacppEngine.extend({ gpuCount: auto.or(llamacppEngine.shape.gpuCount.unwrap()).default("auto") }),
  vllmEngine.extend({
    tensorParallel: auto.or(vllmEngine.shape.tensorParallel.unwrap()).default("auto"),
    pipelineParallel: auto.or(vllmEngine.shape.pipelineParallel.unwrap()).default("auto"),
    nodes: auto.or(vllmEngine.shape.nodes.unwrap()).default("auto"),
  }),
  tritonEngine.extend({ tensorParallel: auto.or(tritonEngine.shape.tensorParallel.unwrap()).default("auto") }),
  trtllmEngine.extend({
    tensorParallel: auto.or(trtllmEngine.shape.tensorParallel.unwrap()).default("auto"),
    pipelineParallel: auto.or(trtllmEngine.shape.pipelineParallel.unwrap()).default("auto"),
  }),
]);

/** An engine as a stack names it: sizes may be `auto`. */
export type StackEngine = z.infer<typeof cloudEngine> | EngineSpec;

/** Over how many GPUs and nodes one replica is spread. */
export interface EngineSizes {
  readonly tensorParallel: number;
  readonly pipelineParallel: number;
  readonly nodes: number;
}

/** The engine with a number for every `auto`; numbers that the operator wrote stay. */
export function withSizes(engine: StackEngine, sizes: EngineSizes): EngineSpec {
  const tensorParallel = (written: number | "auto"): number => (written === "auto" ? sizes.tensorParallel : written);
  const pipelineParallel = (written: number | "auto"): number =>
    written === "auto" ? sizes.pipelineParallel : written;
  if (engine.kind === "embedded") return engine;
  if (engine.kind === "llamacpp") return { ...engine, gpuCount: tensorParallel(engine.gpuCount) };
  if (engine.kind === "triton") return { ...engine, tensorParallel: tensorParallel(engine.tensorParallel) };
  const spread = {
    tensorParallel: tensorParallel(engine.tensorParallel),
    pipelineParallel: pipelineParallel(engine.pipelineParallel),
  };
  if (engine.kind === "trtllm") return { ...engine, ...spread };
  return { ...engine, ...spread, nodes: engine.nodes === "auto" ? sizes.nodes : engine.nodes };
}
