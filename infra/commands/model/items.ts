import { PenstockError } from "../../../runtime/contracts/errors.ts";
import type { CloudPlan } from "../../plan/plan.ts";
import type { CloudStack } from "../../stack/schema.ts";

/** A model or adapter that a stack serves: where it comes from, and where agents read it. */
export interface Item {
  /** `model` or `model:adapter`. */
  readonly name: string;
  readonly origin: string;
  /** Below the cache's address, such as `models/llama-8b`. */
  readonly folder: string;
}

/** Everything that the cache of a stack is to hold. */
export function itemsOf(stack: CloudStack, { models, cache }: CloudPlan): Item[] {
  return stack.models.flatMap((model) => {
    const spec = models.find(({ id }) => id === model.id)?.spec;
    if (spec === undefined) return [];
    return [
      { name: model.id, origin: model.source, folder: folderOf(cache.uri, spec.source) },
      ...model.adapters.map(({ name, source }) => {
        const stored = spec.adapters.find((adapter) => adapter.name === name)?.source ?? source;
        return { name: `${model.id}:${name}`, origin: source, folder: folderOf(cache.uri, stored) };
      }),
    ];
  });
}

/** The one that is named, or all. Throws `not_found` with the names that there are. */
export function chosen(items: readonly Item[], name: string | null): readonly Item[] {
  if (name === null) return items;
  const item = items.find((each) => each.name === name);
  if (item !== undefined) return [item];
  throw new PenstockError(
    "not_found",
    `No model or adapter of the stack is named ${name}; there are ${items.map((each) => each.name).join(", ")}.`,
  );
}

/** The folder of a model, below the cache; that of a single file is the one around it. */
function folderOf(cacheUri: string, stored: string): string {
  const path = stored.slice(cacheUri.length + 1);
  return path.endsWith(".gguf") ? path.slice(0, path.lastIndexOf("/")) : path;
}
