import { createHash } from "node:crypto";
import { PenstockError } from "../../contracts/errors.ts";
import type { ServedModel } from "../options.ts";

/** A model as agents know it. */
export interface Deployment extends ServedModel {
  /** Its name on agents and in engines: the model's id, or the id and a hash for a version that came later. */
  readonly name: string;
}

/** A name that clients use for one of several models, each as often as its weight says. */
export type Aliases = Readonly<Record<string, readonly { readonly model: string; readonly weight: number }[]>>;

/** What a request's `model` comes to. */
export interface Resolved {
  readonly model: Deployment;
  readonly adapter: string | undefined;
  /** What the engine must be sent as `model`: `name`, or `name:adapter`. */
  readonly engineModel: string;
}

/** Which models there are, by the names that clients use. */
export class Catalog {
  readonly #deployments = new Map<string, Deployment>();
  #aliases: Aliases = {};

  constructor(models: readonly ServedModel[], aliases: Aliases = {}) {
    for (const served of models) this.#deployments.set(served.spec.id, { ...served, name: served.spec.id });
    this.#aliases = aliases;
  }

  get all(): readonly Deployment[] {
    return [...this.#deployments.values()];
  }

  get aliases(): Aliases {
    return this.#aliases;
  }

  set aliases(aliases: Aliases) {
    this.#aliases = aliases;
  }

  get(id: string): Deployment | undefined {
    return this.#deployments.get(id);
  }

  set(deployment: Deployment): void {
    this.#deployments.set(deployment.spec.id, deployment);
  }

  delete(id: string): void {
    this.#deployments.delete(id);
  }

  /**
   * The model that a request names: `id`, `id:adapter`, or an alias. `random` (0 to 1) chooses within an alias.
   * Throws `model_not_found` with the names that there are.
   */
  resolve(name: string, random = Math.random()): Resolved {
    const [base = "", adapter] = name.split(":", 2);
    const alias = Object.hasOwn(this.#aliases, base) ? this.#aliases[base] : undefined;
    const id = alias === undefined ? base : weighted(alias, random);
    const model = this.#deployments.get(id);
    if (model !== undefined && (adapter === undefined || model.spec.adapters.some((each) => each.name === adapter))) {
      return { model, adapter, engineModel: adapter === undefined ? model.name : `${model.name}:${adapter}` };
    }
    const names = [...Object.keys(this.#aliases), ...this.all.flatMap(modelNames)];
    throw new PenstockError(
      "model_not_found",
      `There is no model \`${name}\` here. ${names.length === 0 ? "None is served." : `There is ${names.join(", ")}.`}`,
      { param: "model" },
    );
  }
}

/** Every name that clients may use for a model: its id, and `id:adapter` for each adapter. */
export function modelNames({ spec }: ServedModel): string[] {
  return [spec.id, ...spec.adapters.map(({ name }) => `${spec.id}:${name}`)];
}

/**
 * The deployment for a model that was configured anew: the same one when only its settings changed, and another one, which
 * can be warmed beside the old, when other bytes or another engine shall serve.
 */
export function deploymentFor(served: ServedModel, before: Deployment | undefined): Deployment {
  const { id } = served.spec;
  if (before === undefined) return { ...served, name: id };
  if (identity(served) === identity(before)) return { ...served, name: before.name };
  const hash = createHash("sha256").update(identity(served)).digest("hex").slice(0, 8);
  return { ...served, name: `${id}.${hash}` };
}

function identity({ spec, engine, fleet }: ServedModel): string {
  const { adapters: _adapters, ...weights } = spec;
  return JSON.stringify([weights, engine, fleet]);
}

function weighted(choices: readonly { readonly model: string; readonly weight: number }[], random: number): string {
  const total = choices.reduce((sum, { weight }) => sum + weight, 0);
  let left = random * total;
  for (const { model, weight } of choices) {
    left -= weight;
    if (left < 0) return model;
  }
  return choices.at(-1)?.model ?? "";
}
