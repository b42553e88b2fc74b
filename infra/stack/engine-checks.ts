import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { withSizes } from "./engines.ts";
import type { StackConfig, StackModel } from "./schema.ts";

/** For what does not depend on sizes: `auto` stands for one GPU. */
const oneGpu = { tensorParallel: 1, pipelineParallel: 1, nodes: 1 };

/** What each fleet's engine cannot do: with its own options, and for the models that it serves. */
export function engineChecks({ models, fleets }: StackConfig): string[] {
  return fleets.flatMap(({ engine: written, models: ids }, index) => {
    const engine = withSizes(written, oneGpu);
    return [
      ...engineOf(engine)
        .refusals(engine)
        .map((refusal) => `fleets[${index}].engine: ${refusal}`),
      ...models.flatMap((model, at) => (ids.includes(model.id) ? modelProblems(engine, { model, at }) : [])),
    ];
  });
}

function modelProblems(engine: EngineSpec, { model, at }: { model: StackModel; at: number }): string[] {
  const described = engineOf(engine);
  const problems: string[] = [];
  if (!described.formats(engine).includes(model.format)) {
    problems.push(
      `models[${at}].format: the ${engine.kind} engine reads ${described.formats(engine).join(" or ")}, not ${model.format}`,
    );
  }
  const wanted = model.adapters.length;
  const { count } = described.adapterLimits(engine);
  if (wanted > 0 && described.capabilities.adapters === "none") {
    problems.push(`models[${at}].adapters: the ${engine.kind} engine cannot load adapters`);
  } else if (wanted > count) {
    const remedy = count === 0 ? "set the engine's lora" : "leave some out, or raise the engine's limit";
    problems.push(`models[${at}].adapters: the ${engine.kind} engine holds ${count}, not ${wanted}; ${remedy}`);
  }
  return problems;
}
