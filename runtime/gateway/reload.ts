import type { Tenant } from "../contracts/tenant.ts";
import { PenstockError } from "../contracts/errors.ts";
import type { Hooks } from "./hooks/hooks.ts";
import type { Reloadable } from "./options.ts";
import type { Spill } from "./providers/spill.ts";
import type { ModelRegistry } from "./registry/registry.ts";
import { defaultPolicy } from "./routing/index.ts";
import type { Hedging } from "./stages/hedge.ts";
import type { Routing } from "./stages/route.ts";

/** What a changed config goes to. */
export interface Reloading {
  readonly hooks: Hooks;
  readonly registry: ModelRegistry;
  /** Writes tenants down, all or none. */
  readonly writeTenants: (tenants: readonly Tenant[]) => Promise<void>;
  /** Switches to them. */
  readonly useTenants: (tenants: readonly Tenant[]) => void;
  readonly usePrices: (changed: Reloadable) => void;
  readonly routing: Routing;
  readonly spill: Spill;
  readonly hedging: Hedging;
}

/**
 * Takes changed configs, one after the other. Everything that can fail comes first: hooks, models, and tenants as the last,
 * since what other gateways read cannot be taken back; then all of it holds at once. What fails leaves all as it was.
 */
export function reloader(parts: Reloading): (changed: Reloadable) => Promise<void> {
  const { hooks, registry, writeTenants } = parts;
  let last: Promise<unknown> = Promise.resolve();
  const take = async (changed: Reloadable): Promise<void> => {
    await using nextHooks = await hooks.load(changed.hooks ?? []);
    await using nextModels = await registry.prepare(changed.models, changed.aliases ?? {});
    try {
      await writeTenants(changed.tenants ?? []);
    } catch (cause) {
      throw notWritten(cause);
    }
    nextHooks.use();
    nextModels.use();
    useRest(changed, parts);
  };
  return (changed) => {
    const mine = last.then(() => take(changed));
    last = mine.catch(() => undefined);
    return mine;
  };
}

/** Nothing in it can fail. */
function useRest(changed: Reloadable, { useTenants, usePrices, routing, spill, hedging }: Reloading): void {
  useTenants(changed.tenants ?? []);
  usePrices(changed);
  routing.policy = changed.routing ?? defaultPolicy;
  spill.configure(changed);
  hedging.configure(changed.hedging);
}

function notWritten(cause: unknown): PenstockError {
  const reason = cause instanceof Error ? cause.message : "it gives no reason";
  return new PenstockError(
    "upstream_failed",
    `The record store did not take the config's tenants (${reason}), so nothing of the config is used. If the connection ` +
      "broke while it wrote, their limits may hold already. Reload again when the store can be reached.",
    { cause },
  );
}
