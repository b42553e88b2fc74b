import { toPenstockError, type PenstockError } from "../../contracts/errors.ts";
import type { RelayResult } from "../../lib/relay.ts";
import type { Exchange } from "../exchange.ts";
import { choose, type Wanted } from "./choose.ts";
import type { Provider } from "./provider.ts";
import { ProviderFailure } from "./send.ts";

/** Why a request leaves. */
export type SpillReason = "no_replica" | "queue";

/** What a trip needs of the whole. */
export interface TripParts {
  send(provider: Provider, exchange: Exchange): Promise<RelayResult>;
  /** Counts and logs how a provider did. */
  report(outcome: {
    provider: Provider;
    exchange: Exchange;
    reason: SpillReason;
    /** How the answer ended, or why there was none. */
    result: RelayResult["outcome"] | ProviderFailure;
  }): void;
}

/** What is fixed when a request is read. */
export interface TripPlan {
  readonly wanted: Wanted;
  /** Providers that may see the request. */
  readonly allowed: readonly Provider[];
  /** Why it leaves before it has tried at home; null when it does not. */
  readonly reason: SpillReason | null;
  /** What may make it leave at all. */
  readonly when: { readonly noReplica: boolean; readonly queueFull: boolean };
}

/** Providers that one request is sent to at most. */
const maxProviders = 3;

/** Failures at home that another place does not share. A request that kills engines stays at home. */
const failuresAtHome: ReadonlySet<string> = new Set([
  "upstream_failed",
  "draining",
  "model_not_ready",
  "no_replica",
  "insufficient_memory",
  "insufficient_gpu_memory",
  "hold_expired",
  "source_not_found",
  "source_denied",
  "source_failed",
  "checksum_mismatch",
  "model_file_invalid",
  "engine_start_failed",
  "verification_failed",
  "cache_full",
  "disk_full",
]);
const fullAtHome: ReadonlySet<string> = new Set(["queue_full", "overloaded"]);

/** One request's way to providers: before it has tried at home, or after. */
export class Trip {
  readonly #plan: TripPlan;
  readonly #parts: TripParts;
  readonly #tried = new Set<Provider>();
  #reason: SpillReason | null;
  /** What the last provider's failure means to the client. */
  #error: PenstockError | null = null;

  constructor(plan: TripPlan, parts: TripParts) {
    this.#plan = plan;
    this.#parts = parts;
    this.#reason = plan.reason;
  }

  /** Whether it goes to a provider first, so that it needs no place in the queue at home. */
  get goesFirst(): boolean {
    return this.#reason !== null;
  }

  /** Admits the request: without a place at home when it goes first, or when there is none. */
  async admit<Admitted>(enter: (takesPlace: boolean) => Promise<Admitted>): Promise<Admitted> {
    try {
      return await enter(!this.goesFirst);
    } catch (thrown) {
      if (this.goesFirst || !fullAtHome.has(toPenstockError(thrown).code) || !this.#mayLeaveQueue()) throw thrown;
      this.#reason = "queue";
      return enter(false);
    }
  }

  /** The answer of a provider, when the request goes there first and one answers; null: it is for home now. */
  async early(exchange: Exchange): Promise<RelayResult | null> {
    return this.#reason === null ? null : this.#go(exchange, this.#reason);
  }

  /** The answer of a provider after home has failed. Throws what is to be said when there is none. */
  async late(exchange: Exchange, failure: PenstockError): Promise<RelayResult> {
    const reason = this.#reasonFor(failure);
    const result = reason === null ? null : await this.#go(exchange, reason);
    if (result !== null) return result;
    throw reason === null ? failure : (this.#error ?? failure);
  }

  #reasonFor({ code }: PenstockError): SpillReason | null {
    const { when } = this.#plan;
    if (when.noReplica && failuresAtHome.has(code)) return "no_replica";
    return when.queueFull && fullAtHome.has(code) ? "queue" : null;
  }

  #mayLeaveQueue(): boolean {
    return this.#plan.when.queueFull && choose(this.#plan.allowed, this.#plan.wanted) !== null;
  }

  async #go(exchange: Exchange, reason: SpillReason): Promise<RelayResult | null> {
    while (this.#tried.size < maxProviders) {
      const untried = this.#plan.allowed.filter((provider) => !this.#tried.has(provider));
      const provider = choose(untried, this.#plan.wanted);
      if (provider === null) return null;
      this.#tried.add(provider);
      try {
        const result = await this.#parts.send(provider, exchange);
        if (result.outcome === "complete") provider.succeeded();
        else if (result.outcome === "cut") provider.failed();
        this.#parts.report({ provider, exchange, reason, result: result.outcome });
        return result;
      } catch (thrown) {
        if (!(thrown instanceof ProviderFailure)) throw thrown;
        this.#learn(provider, thrown);
        this.#parts.report({ provider, exchange, reason, result: thrown });
      }
    }
    return null;
  }

  #learn(provider: Provider, { verdict }: ProviderFailure): void {
    this.#error = verdict.error;
    if (verdict.pauseSeconds !== null) provider.pause(verdict.pauseSeconds);
    else if (verdict.isFault) provider.failed();
  }
}
