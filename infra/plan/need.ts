import type { CloudFleet, CloudModel } from "../stack/schema.ts";
import type { StackEngine } from "../stack/engines.ts";
import type { ModelShape } from "../stack/shape.ts";

/** A model with its shape. */
export interface ShapedModel {
  readonly at: number;
  readonly config: CloudModel;
  readonly shape: ModelShape;
  /** Name in the catalogue; null for a shape that the stack spells out. */
  readonly shapeName: string | null;
  readonly why: readonly string[];
}

/** A fleet with everything that its size depends on. */
export interface FleetNeed {
  readonly at: number;
  readonly config: CloudFleet;
  readonly models: readonly [ShapedModel, ...ShapedModel[]];
  readonly engine: StackEngine;
  readonly contextTokens: number;
  readonly residents: number;
  readonly why: readonly string[];
}

/** The longest context unless the stack asks for more. */
const defaultContextTokens = 32768;

/** Part of a GPU that models which share it may take together, at most. */
const sharedUtilization = 0.96;

/** Makes the need of a fleet; every problem goes to `report`, and null comes back. */
export function needOf(
  { config, at }: { readonly config: CloudFleet; readonly at: number },
  models: readonly ShapedModel[],
  report: (problem: string) => void,
): FleetNeed | null {
  const [first, ...others] = models;
  if (first === undefined || models.length < config.models.length) return null;
  const path = `fleets[${at}]`;
  const problems = [...engineProblems(config, models), ...contextProblems(config, models)];
  for (const problem of problems) report(`${path}${problem}`);
  if (problems.length > 0) return null;
  const contextTokens = contextOf(config, models);
  const residents = Math.min(config.residentModels ?? 1, models.length);
  const shared = sharing(withContext(config.engine, contextTokens), residents);
  return { at, config, models: [first, ...others], contextTokens, residents, ...shared };
}

function engineProblems({ engine, residentModels = 1 }: CloudFleet, models: readonly ShapedModel[]): string[] {
  if (engine.kind === "embedded") {
    return [".engine.kind: the embedded engine is for one machine; use llamacpp, which serves the same files on GPUs"];
  }
  if (engine.kind === "llamacpp" && engine.gpuLayers === 0) {
    return [".engine.gpuLayers: 0 leaves the pool's GPUs idle; set it above 0"];
  }
  const problems = models.flatMap(({ config, shape }) =>
    shape.task === engine.task
      ? []
      : [
          `.engine.task: \`${config.id}\` is a model to ${shape.task}; set task to ${shape.task}, or serve it elsewhere`,
        ],
  );
  const takesAll = engine.kind === "trtllm" || (engine.kind === "triton" && engine.backend === "tensorrtllm");
  if (takesAll && residentModels > 1) {
    problems.push(".residentModels: TensorRT-LLM takes all of a GPU that its weights leave; leave it out, or use vllm");
  }
  return problems;
}

function contextProblems(config: CloudFleet, models: readonly ShapedModel[]): string[] {
  const asked = config.contextTokens ?? writtenContext(config.engine);
  if (asked === undefined) return [];
  return models.flatMap(({ config: { id }, shape }) =>
    asked > shape.contextTokens
      ? [`.contextTokens: ${asked} is more than the ${shape.contextTokens} tokens of \`${id}\`; lower it`]
      : [],
  );
}

function contextOf(config: CloudFleet, models: readonly ShapedModel[]): number {
  const own = Math.min(...models.map(({ shape }) => shape.contextTokens));
  const byDefault = config.engine.kind === "llamacpp" ? config.engine.contextSize : defaultContextTokens;
  return Math.min(own, config.contextTokens ?? writtenContext(config.engine) ?? byDefault);
}

function writtenContext(engine: StackEngine): number | undefined {
  if (engine.kind === "vllm" || engine.kind === "triton") return engine.maxModelLen;
  return engine.kind === "trtllm" ? engine.maxSeqLen : undefined;
}

/** The engine told of its context, so that it takes no more memory for it than is planned. */
function withContext(engine: StackEngine, contextTokens: number): StackEngine {
  if (engine.kind === "vllm") return { ...engine, maxModelLen: contextTokens };
  if (engine.kind === "llamacpp") return { ...engine, contextSize: contextTokens };
  // A TensorRT engine has its length built in.
  if (engine.kind === "triton" && engine.backend === "vllm") return { ...engine, maxModelLen: contextTokens };
  if (engine.kind === "trtllm" && engine.backend === "pytorch") return { ...engine, maxSeqLen: contextTokens };
  return engine;
}

/** Models that share a GPU get a part of it each. */
function sharing(engine: StackEngine, residents: number): Pick<FleetNeed, "engine" | "why"> {
  if (residents === 1) return { engine, why: [] };
  const why = [`${residents} models share each replica's GPUs`];
  const needsParts = engine.kind === "vllm" || engine.kind === "triton";
  if (!needsParts || engine.gpuMemoryUtilization * residents <= sharedUtilization) return { engine, why };
  const part = Math.floor((sharedUtilization / residents) * 100) / 100;
  return {
    engine: { ...engine, gpuMemoryUtilization: part },
    why: [...why, `each takes ${part} of the GPU memory: ${engine.gpuMemoryUtilization} for each does not add up`],
  };
}
