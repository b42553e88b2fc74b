import type { Tenant } from "../../contracts/tenant.ts";
import type { Charge } from "../stores/hot.ts";

/** What a model costs, in USD per million tokens. */
export interface TokenPrice {
  readonly promptUsd: number;
  readonly completionUsd: number;
}

/** Tokens that a request used, as the engine counted them. */
export interface TokenUsage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** What it cost, where that is not what the estimate's price says: somebody else answered. */
  readonly costUsd?: number | undefined;
}

/** What is known of a request before it runs. */
export interface Estimate {
  readonly model: string;
  /** Tokens of the prompt, estimated from above. */
  readonly promptTokens: number;
  /** What the client allows the answer to be; undefined when it says nothing. */
  readonly maxTokens?: number | undefined;
  /** Undefined for a model without a price: then budgets do not count it. */
  readonly price?: TokenPrice | undefined;
  /** Whether it takes one of the model's places. False: somebody else is to answer it; `Admitted.takePlace` takes one later. */
  readonly takesPlace?: boolean;
  /** Size of the body, which is kept while the request waits. */
  readonly bytes: number;
  /** The client leaves after so long. */
  readonly deadlineMs?: number | undefined;
}

/** Names of the meters of a tenant, which are also their keys in the stores. */
export const meterNames = ["requests", "tokens", "concurrency", "budget"] as const;
export type MeterName = (typeof meterNames)[number];

const minuteMs = 60_000;

/** Cost in 1e-9 USD, rounded up. */
export function nanoUsd(price: TokenPrice, { promptTokens, completionTokens }: TokenUsage): number {
  // USD per 1e6 tokens is 1e3 nano-USD per token.
  return Math.ceil(promptTokens * price.promptUsd * 1_000 + completionTokens * price.completionUsd * 1_000);
}

/**
 * The most that a request can use. An answer without a bound of its own counts as `defaultMaxTokens`, or as what the
 * tenant's limit leaves when that is less: such a request must not be impossible.
 */
export function worstCase({ limits }: Tenant, estimate: Estimate, defaultMaxTokens: number): TokenUsage {
  const promptTokens = Math.ceil(estimate.promptTokens);
  const left = Math.max(1, (limits.tokensPerMinute ?? Infinity) - promptTokens);
  return { promptTokens, completionTokens: Math.ceil(estimate.maxTokens ?? Math.min(defaultMaxTokens, left)) };
}

/** What a request with this usage takes from the tenant's meters; empty for a tenant without limits. */
export function chargesOf({ limits }: Tenant, usage: TokenUsage, price: TokenPrice | undefined): Charge[] {
  const charges: Charge[] = [];
  if (limits.requestsPerMinute !== undefined) {
    charges.push({ meter: rate("requests", limits.requestsPerMinute), amount: 1 });
  }
  if (limits.tokensPerMinute !== undefined) {
    charges.push({
      meter: rate("tokens", limits.tokensPerMinute),
      amount: usage.promptTokens + usage.completionTokens,
    });
  }
  if (limits.concurrentRequests !== undefined) {
    charges.push({ meter: { kind: "concurrency", name: "concurrency", limit: limits.concurrentRequests }, amount: 1 });
  }
  if (limits.budget !== undefined) {
    const { usd, period } = limits.budget;
    const meter = { kind: "budget", name: "budget", limit: Math.round(usd * 1e9), period } as const;
    charges.push({ meter, amount: price === undefined ? 0 : nanoUsd(price, usage) });
  }
  return charges;
}

/** What was really used, for the same charges. */
export function amountsOf(charges: readonly Charge[], usage: TokenUsage, price: TokenPrice | undefined): number[] {
  return charges.map(({ meter: { name }, amount }) => {
    if (name === "tokens") return usage.promptTokens + usage.completionTokens;
    if (name === "budget" && usage.costUsd !== undefined) return Math.ceil(usage.costUsd * 1e9);
    if (name === "budget") return price === undefined ? 0 : nanoUsd(price, usage);
    return amount;
  });
}

function rate(name: MeterName, limit: number): Charge["meter"] {
  return { kind: "rate", name, limit, windowMs: minuteMs };
}
