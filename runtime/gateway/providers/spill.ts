import { isDeepStrictEqual } from "node:util";
import { Counter, type Registry } from "prom-client";
import type { Logger } from "../../lib/log.ts";
import { liveGauge } from "../../lib/metrics.ts";
import type { FairQueue } from "../admission/fair-queue.ts";
import { endpointOf, type EndpointPath } from "../api/endpoints.ts";
import type { Exchange } from "../exchange.ts";
import type { Agents } from "../fleet/agents.ts";
import type { ModelRegistry } from "../registry/registry.ts";
import { choose, ourName } from "./choose.ts";
import { secondsAtHome } from "./home.ts";
import type { ProviderOptions, SpillRule } from "./options.ts";
import { probe } from "./probe.ts";
import { Provider } from "./provider.ts";
import { hopHeader, ProviderFailure, send, type SendParts } from "./send.ts";
import { Trip, type SpillReason, type TripParts } from "./trip.ts";

/** How often other gateways are asked how they are. */
const probeIntervalMs = 5_000;

/** What of a gateway spill-over works with. */
export interface SpillParts extends SendParts {
  readonly registry: ModelRegistry;
  readonly agents: Pick<Agents, "all">;
  readonly queue: Pick<FairQueue, "waitMs">;
  readonly metrics: Registry;
  readonly log: Logger;
}

/** What a reload may change. */
export interface SpillOptions {
  readonly providers?: readonly ProviderOptions[] | undefined;
  readonly spill?: readonly SpillRule[] | undefined;
}

/** A request as far as it is known before it is admitted. */
export type Traveller = Pick<Exchange, "incoming" | "path" | "principal" | "request" | "model" | "adapter">;

/** Endpoints that whoever speaks OpenAI's API may have. */
const openAiPaths: ReadonlySet<EndpointPath> = new Set([
  "/v1/chat/completions",
  "/v1/completions",
  "/v1/embeddings",
  "/v1/audio/speech",
]);

/** Sends requests that home cannot answer in time to providers: the cheapest that may have them, and is well. */
export class Spill implements Disposable {
  readonly #parts: SpillParts;
  readonly #tripParts: TripParts;
  readonly #requests: Counter<"model" | "provider" | "reason" | "result">;
  readonly #timer: NodeJS.Timeout;
  /** What is wrong with a gateway, as it was logged last. */
  readonly #complaints = new Map<string, string>();
  #providers: readonly Provider[] = [];
  #rules: ReadonlyMap<string, SpillRule> = new Map();

  constructor(options: SpillOptions, parts: SpillParts) {
    this.#parts = parts;
    this.#tripParts = {
      send: (provider, exchange) => send(provider, exchange, parts),
      report: (outcome) => this.#report(outcome),
    };
    this.#requests = new Counter({
      name: "penstock_gateway_spilled_total",
      help: "Requests sent to a provider, by why they left and how that ended: `complete`, `cut`, `client_left`, or `failed` before the first byte.",
      labelNames: ["model", "provider", "reason", "result"],
      registers: [parts.metrics],
    });
    liveGauge(
      parts.metrics,
      {
        name: "penstock_gateway_provider",
        help: "Each provider: whether it is `healthy`, and requests `running` there.",
        labelNames: ["provider", "what"],
      },
      () =>
        this.#providers.flatMap(({ name, isHealthy, running }) => [
          [{ provider: name, what: "healthy" }, Number(isHealthy)] as const,
          [{ provider: name, what: "running" }, running] as const,
        ]),
    );
    this.#timer = setInterval(() => void this.#probeAll(), probeIntervalMs).unref();
    this.configure(options);
  }

  /** How providers are doing, for people. */
  get state() {
    return this.#providers.map((provider) => ({
      name: provider.name,
      healthy: provider.isHealthy,
      running: provider.running,
      /** Our names of models that answer there at once; null for a provider that does not say. */
      warm:
        provider.warm === null ? null : Object.keys(provider.options.models).filter((each) => !provider.isCold(each)),
    }));
  }

  /** Takes other providers and rules. A provider that stays as it was keeps what was learned of it. */
  configure({ providers = [], spill = [] }: SpillOptions): void {
    const before = this.#providers;
    this.#providers = providers.map(
      (options) => before.find((known) => isDeepStrictEqual(known.options, options)) ?? new Provider(options),
    );
    this.#rules = new Map(spill.map((rule) => [rule.model, rule]));
    void this.#probeAll();
  }

  /** The way of a request to providers; null when it has none. Starts the load at home if it leaves for lack of it. */
  trip(traveller: Traveller): Trip | null {
    const { model, adapter, request } = traveller;
    const rule = this.#rules.get(model.spec.id);
    if (rule === undefined) return null;
    const allowed = this.#allowed(rule, traveller);
    if (allowed.length === 0) return null;
    const { promptTokens, maxTokens } = request;
    const wanted = { model: model.spec.id, adapter, promptTokens, maxTokens };
    const first = choose(allowed, wanted);
    // Not from one cold place to another.
    const isUseful = first !== null && !first.isCold(ourName(wanted));
    const reason = isUseful ? this.#reason(rule, traveller) : null;
    if (reason === "no_replica" && rule.loadsAtHome) void this.#parts.registry.load(model);
    return new Trip({ wanted, allowed, reason, when: rule.when }, this.#tripParts);
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  #allowed({ to, residencies }: SpillRule, { incoming, path, principal, ...rest }: Traveller): readonly Provider[] {
    // An upload streams through and names its model in itself; a response may go on from one that an engine keeps.
    if (incoming.headers[hopHeader] !== undefined) return [];
    if (endpointOf(path).body !== "json" || path === "/v1/responses") return [];
    const ours = ourName({ model: rest.model.spec.id, adapter: rest.adapter });
    const bounds = [residencies, principal.tenant.residencies].filter((each) => each !== undefined);
    return this.#providers.filter(
      (provider) =>
        to.includes(provider.name) &&
        bounds.every((bound) => bound.includes(provider.options.residency)) &&
        provider.nameOf(ours) !== undefined &&
        (provider.options.kind === "penstock" || openAiPaths.has(path)),
    );
  }

  /** Why a request would not be answered in time at home; null when it would. */
  #reason({ when }: SpillRule, { model, principal, request }: Traveller): SpillReason | null {
    const { registry, agents, queue } = this.#parts;
    const limit = when.expectedWaitSecondsAbove;
    if (registry.replicas(model).length === 0) {
      return when.noReplica && secondsAtHome(model, agents.all) > limit ? "no_replica" : null;
    }
    if (!when.queueFull) return null;
    const waitMs = queue.waitMs({ model: model.name, tenant: principal.tenant, bytes: request.bytes });
    return waitMs > limit * 1_000 ? "queue" : null;
  }

  #report({ provider, exchange, reason, result }: Parameters<TripParts["report"]>[0]): void {
    const model = exchange.model.spec.id;
    const isFailure = result instanceof ProviderFailure;
    this.#requests.inc({ model, provider: provider.name, reason, result: isFailure ? "failed" : result });
    if (!isFailure) return;
    const { id: requestId, trace } = exchange;
    const detail = { requestId, traceId: trace?.traceId, model, provider: provider.name, reason: result.message };
    const cause = result.cause instanceof Error ? result.cause.cause : undefined;
    this.#parts.log.warn({ ...detail, ...(cause === undefined ? {} : { err: cause }) }, "a provider did not answer");
  }

  async #probeAll(): Promise<void> {
    await Promise.all(
      this.#providers
        .filter(({ options }) => options.kind === "penstock")
        .map(async (provider) => {
          const problem = (await probe(provider)) ?? "";
          if (problem === (this.#complaints.get(provider.name) ?? "")) return;
          this.#complaints.set(provider.name, problem);
          const detail = { provider: provider.name, ...(problem === "" ? {} : { problem }) };
          if (problem === "") this.#parts.log.info(detail, "provider is reachable");
          else this.#parts.log.warn(detail, "provider cannot be used as it should");
        }),
    );
  }
}
