import { divided } from "./money.ts";
import type { UsageKey, UsageSums } from "./usage.ts";

/** Whose part of a bill something is, when nobody's request caused it. */
export const nobody = "(nobody)";

/** What one tenant, model, adapter and class cost, in millionths of a USD. */
export interface UsageCost extends UsageKey {
  readonly requests: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Replicas at work for it. */
  readonly directMicroUsd: number;
  /** Replicas that became ready because of it. */
  readonly coldStartMicroUsd: number;
  /** Replicas and nodes that stood ready for those who use them. */
  readonly idleMicroUsd: number;
  /** Its part of system nodes, stores, network, logs. */
  readonly sharedMicroUsd: number;
  /** What a provider charged for what no fleet answered. */
  readonly providerMicroUsd: number;
  readonly totalMicroUsd: number;
  /** False: its pool has no known bill, so its cost is unknown, or at least what is here. */
  readonly isPriced: boolean;
}

/** Why a part of a pool's bill is somebody's. */
export type Kind = "direct" | "coldStart" | "idle";

/** The key of what nobody's request caused, such as a model that is kept warm and that nobody used. */
export function nobodysKey(model: string): UsageKey {
  return { tenant: nobody, model, adapter: null, class: "", provider: null };
}

type Parts = Record<Kind | "shared", number>;

/** Collects parts of bills by who caused them. */
export class Costs {
  readonly #rows = new Map<
    string,
    { readonly key: UsageKey; readonly usage: UsageSums | null; readonly parts: Parts }
  >();

  constructor(usage: readonly UsageSums[]) {
    for (const row of usage) this.#row(row, row);
  }

  add(key: UsageKey, kind: Kind, microUsd: number): void {
    this.#row(key, null).parts[kind] += microUsd;
  }

  /** Divides a bill that all share among the rows by what they cost otherwise. */
  share(microUsd: number): void {
    let rows = [...this.#rows.values()].filter(({ key, parts }) => key.provider === null && ownOf({ parts }) > 0);
    if (rows.length === 0) rows = [this.#row(nobodysKey("(no model)"), null)];
    const parts = divided(microUsd, rows.map(ownOf));
    for (const [at, row] of rows.entries()) row.parts.shared += parts[at] ?? 0;
  }

  /** `unpriced`: models of pools without a bill. */
  rows(unpriced: ReadonlySet<string>): UsageCost[] {
    return [...this.#rows.values()].map(({ key, usage, parts }) => {
      const providerMicroUsd = usage?.providerMicroUsd ?? 0;
      return {
        tenant: key.tenant,
        model: key.model,
        adapter: key.adapter,
        class: key.class,
        provider: key.provider,
        requests: usage?.requests ?? 0,
        promptTokens: usage?.promptTokens ?? 0,
        completionTokens: usage?.completionTokens ?? 0,
        directMicroUsd: parts.direct,
        coldStartMicroUsd: parts.coldStart,
        idleMicroUsd: parts.idle,
        sharedMicroUsd: parts.shared,
        providerMicroUsd,
        totalMicroUsd: parts.direct + parts.coldStart + parts.idle + parts.shared + providerMicroUsd,
        isPriced: key.provider !== null || !unpriced.has(key.model),
      };
    });
  }

  #row(
    key: UsageKey,
    usage: UsageSums | null,
  ): { readonly key: UsageKey; readonly usage: UsageSums | null; readonly parts: Parts } {
    const name = JSON.stringify([key.tenant, key.model, key.adapter, key.class, key.provider]);
    const found = this.#rows.get(name);
    if (found !== undefined) return found;
    const row = { key, usage, parts: { direct: 0, coldStart: 0, idle: 0, shared: 0 } };
    this.#rows.set(name, row);
    return row;
  }
}

function ownOf({ parts: { direct, coldStart, idle } }: { readonly parts: Parts }): number {
  return direct + coldStart + idle;
}
