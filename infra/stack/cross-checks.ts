import type { EngineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { withSizes } from "./engines.ts";
import type { StackConfig, StackModel } from "./schema.ts";

/** For what does not depend on sizes: `auto` stands for one GPU. */
const oneGpu = { tensorParallel: 1, pipelineParallel: 1, nodes: 1 };

/** What the schema cannot see: names that must match, and options that an engine must be able to honour. */
export function crossChecks(stack: StackConfig): string[] {
  return [...duplicateNames(stack), ...fleetModels(stack), ...capabilities(stack)];
}

function duplicateNames({ models, fleets }: StackConfig): string[] {
  return [
    ...repeated(models.map(({ id }) => id)).map((at) => `models[${at}].id: another model has this id`),
    ...repeated(fleets.map(({ name }) => name)).map((at) => `fleets[${at}].name: another fleet has this name`),
  ];
}

function fleetModels({ models, fleets }: StackConfig): string[] {
  const known = models.map(({ id }) => id);
  const problems = fleets.flatMap((fleet, at) =>
    fleet.models.flatMap((id, index) =>
      known.includes(id)
        ? []
        : [`fleets[${at}].models[${index}]: no model named \`${id}\`; there are ${known.join(", ")}`],
    ),
  );
  for (const [at, id] of known.entries()) {
    const serving = fleets.filter((fleet) => fleet.models.includes(id)).length;
    if (serving === 0) problems.push(`models[${at}]: no fleet serves \`${id}\`; add it to a fleet's models`);
    if (serving > 1) problems.push(`models[${at}]: ${serving} fleets serve \`${id}\`; leave it in one`);
  }
  return problems;
}

/** What each fleet's engine cannot do: with its own options, and for the models that it serves. */
function capabilities({ models, fleets }: StackConfig): string[] {
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

function repeated(names: readonly string[]): number[] {
  return names.flatMap((name, index) => (names.indexOf(name) < index ? [index] : []));
}
