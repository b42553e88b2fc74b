import type { Random } from "./random.ts";
import type { Scenario } from "./scenario.ts";

/** Which fleet takes a request, and which of its models. */
export interface Target {
  readonly fleet: number;
  readonly model: number;
}

/** Finds the targets of the models that a trace names, by the plan's models, aliases and adapters. */
export class Targets {
  readonly #scenario: Scenario;
  readonly #mix: readonly Weighted[];

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.#mix = this.#weighted(scenario.mix.map(({ model, share }) => ({ model, weight: share })));
  }

  /** Every target of a model with its share, which sum up to 1; empty: no fleet has it. */
  of(model: string | null): readonly Weighted[] {
    if (model === null) return this.#mix;
    const alias = this.#scenario.plan.gateway.config.aliases[model];
    return this.#weighted(alias ?? [{ model, weight: 1 }]);
  }

  #weighted(entries: readonly { readonly model: string; readonly weight: number }[]): Weighted[] {
    const sum = entries.reduce((total, { weight }) => total + weight, 0);
    return entries.flatMap(({ model, weight }) => {
      const target = this.#find(model);
      return target === null ? [] : [{ target, share: weight / sum }];
    });
  }

  #find(id: string): Target | null {
    // An adapter is `model:adapter`.
    const names = new Set([id, id.split(":")[0] ?? id]);
    for (const [fleet, { fleet: planned }] of this.#scenario.fleets.entries()) {
      const model = planned.models.findIndex((candidate) => names.has(candidate));
      if (model !== -1) return { fleet, model };
    }
    return null;
  }
}

/** A target and what it gets of the requests. */
export interface Weighted {
  readonly target: Target;
  readonly share: number;
}

/** One of them at random; null for the part that none of them gets. */
export function pick(weighted: readonly Weighted[], random: Random): Target | null {
  const [first] = weighted;
  if (first === undefined || (weighted.length === 1 && first.share >= 1)) return first?.target ?? null;
  let left = random.uniform();
  for (const { target, share } of weighted) {
    left -= share;
    if (left < 0) return target;
  }
  // Shares that sum up to 1 may miss it by rounding.
  return left < 1e-9 ? (weighted.at(-1)?.target ?? null) : null;
}
