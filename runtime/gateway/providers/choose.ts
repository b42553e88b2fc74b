import { costOf } from "../metering/prices.ts";
import type { Provider } from "./provider.ts";

/** Tokens of an answer whose length nobody bounds. */
const expectedTokens = 256;

/** A request as far as the choice of a provider depends on it. */
export interface Wanted {
  readonly model: string;
  readonly adapter: string | undefined;
  readonly promptTokens: number;
  readonly maxTokens: number | undefined;
}

/** Our name of what a request wants. */
export function ourName({ model, adapter }: Pick<Wanted, "model" | "adapter">): string {
  return adapter === undefined ? model : `${model}:${adapter}`;
}

/**
 * The provider that a request goes to: healthy, with room, and of these one that need not load the model first, then the
 * cheapest, then the one whose first byte comes soonest, then the first. Null when none can take it.
 */
export function choose(providers: readonly Provider[], wanted: Wanted): Provider | null {
  const ours = ourName(wanted);
  const usable = providers.filter(({ isHealthy, hasRoom }) => isHealthy && hasRoom);
  const [best] = usable.toSorted(
    (a, b) =>
      Number(a.isCold(ours)) - Number(b.isCold(ours)) ||
      expectedUsd(a, wanted) - expectedUsd(b, wanted) ||
      a.firstByteMs(ours) - b.firstByteMs(ours),
  );
  return best ?? null;
}

function expectedUsd({ options }: Provider, { model, adapter, promptTokens, maxTokens }: Wanted): number {
  const tokens = { prompt: promptTokens, cached: 0, completion: maxTokens ?? expectedTokens, audioSeconds: 0 };
  return costOf(new Map(Object.entries(options.prices)), { model, adapter: adapter ?? null }, tokens);
}
