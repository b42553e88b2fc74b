import { cloudChecks } from "./cloud-checks.ts";
import { engineChecks } from "./engine-checks.ts";
import { repeated } from "./repeated.ts";
import type { StackConfig } from "./schema.ts";

/**
 * What the schema cannot see: names that must match, bounds that must not cross, and options that an engine must be able
 * to honour. Sizes and memory are the planner's.
 */
export function crossChecks(stack: StackConfig): string[] {
  return [
    ...duplicateNames(stack),
    ...fleetModels(stack),
    ...engineChecks(stack),
    ...(stack.cloud === "local" ? [] : cloudChecks(stack)),
  ];
}

function duplicateNames({ models, fleets }: StackConfig): string[] {
  return [
    ...repeated(models.map(({ id }) => id)).map((at) => `models[${at}].id: another model has this id`),
    ...repeated(fleets.map(({ name }) => name)).map((at) => `fleets[${at}].name: another fleet has this name`),
    ...models.flatMap(({ adapters }, at) =>
      repeated(adapters.map(({ name }) => name)).map(
        (index) => `models[${at}].adapters[${index}].name: another adapter of this model has this name`,
      ),
    ),
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
