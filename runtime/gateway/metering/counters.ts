import { Counter, type Registry } from "prom-client";
import { Distribution, liveGauge, liveHistogram } from "../../lib/metrics.ts";
import type { ModelTimes } from "./model-times.ts";
import type { UsageRecord } from "./record.ts";

/** Tenants with series of their own; those that come later share `other`. */
const defaultMaxTenants = 200;

const ttftBuckets = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Of one model and tenant, since Prometheus looked last. */
interface Sums {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
  costUsd: number;
  coldStartSeconds: number;
}

/**
 * Usage as Prometheus sees it. Models are those of the configuration, so only tenants need a bound. Sums are kept here and
 * handed to Prometheus' counters when it looks: those check their labels and put a key together at each step.
 */
export class UsageCounters {
  readonly #tokens: Counter<"model" | "tenant" | "kind">;
  readonly #cost: Counter<"model" | "tenant">;
  readonly #estimated: Counter<"model">;
  readonly #ttft = new Map<string, Distribution>();
  readonly #coldStart: Counter<"model">;
  readonly #tenants = new Set<string>();
  /** By model and tenant. */
  readonly #sums = new Map<string, Map<string, Sums>>();
  readonly #maxTenants: number;

  constructor(registry: Registry, maxTenants = defaultMaxTenants) {
    this.#maxTenants = maxTenants;
    const registers = [registry];
    const collect = (): void => this.#handOver();
    this.#tokens = new Counter({
      name: "penstock_gateway_tokens_total",
      help: "Tokens as engines counted them: `prompt` (with `cached` among them) and `completion`.",
      labelNames: ["model", "tenant", "kind"],
      registers,
      collect,
    });
    this.#cost = new Counter({
      name: "penstock_gateway_cost_usd_total",
      help: "Cost of requests at the configured prices.",
      labelNames: ["model", "tenant"],
      registers,
      collect,
    });
    this.#estimated = new Counter({
      name: "penstock_gateway_usage_estimated_total",
      help: "Requests whose engine did not tell what they cost.",
      labelNames: ["model"],
      registers,
    });
    liveHistogram(
      registry,
      {
        name: "penstock_gateway_time_to_first_byte_seconds",
        help: "Time from a request's arrival to the first byte of its answer's body.",
        buckets: ttftBuckets,
      },
      () => [...this.#ttft].map(([model, distribution]) => [{ model }, distribution] as const),
    );
    this.#coldStart = new Counter({
      name: "penstock_gateway_cold_start_seconds_total",
      help: "Time that replicas needed to become ready because a request came.",
      labelNames: ["model"],
      registers,
      collect,
    });
  }

  record(record: UsageRecord): void {
    const { model } = record;
    const sums = this.#sumsOf(model, this.#label(record.tenant));
    sums.promptTokens += record.promptTokens;
    sums.cachedTokens += record.cachedTokens;
    sums.completionTokens += record.completionTokens;
    sums.costUsd += record.costUsd;
    sums.coldStartSeconds += record.coldStartSeconds;
    if (record.estimated) this.#estimated.inc({ model });
    if (record.ttftMs !== null) this.#ttftOf(model).observe(record.ttftMs / 1_000);
  }

  #ttftOf(model: string): Distribution {
    let distribution = this.#ttft.get(model);
    if (distribution === undefined) this.#ttft.set(model, (distribution = new Distribution(ttftBuckets)));
    return distribution;
  }

  #sumsOf(model: string, tenant: string): Sums {
    let ofModel = this.#sums.get(model);
    if (ofModel === undefined) this.#sums.set(model, (ofModel = new Map<string, Sums>()));
    let sums = ofModel.get(tenant);
    if (sums === undefined) {
      sums = { promptTokens: 0, cachedTokens: 0, completionTokens: 0, costUsd: 0, coldStartSeconds: 0 };
      ofModel.set(tenant, sums);
    }
    return sums;
  }

  #handOver(): void {
    for (const [model, ofModel] of this.#sums) {
      for (const [tenant, sums] of ofModel) {
        this.#tokens.inc({ model, tenant, kind: "prompt" }, sums.promptTokens);
        this.#tokens.inc({ model, tenant, kind: "cached" }, sums.cachedTokens);
        this.#tokens.inc({ model, tenant, kind: "completion" }, sums.completionTokens);
        this.#cost.inc({ model, tenant }, sums.costUsd);
        this.#coldStart.inc({ model }, sums.coldStartSeconds);
      }
    }
    this.#sums.clear();
  }

  #label(tenant: string): string {
    if (this.#tenants.has(tenant)) return tenant;
    if (this.#tenants.size >= this.#maxTenants) return "other";
    this.#tenants.add(tenant);
    return tenant;
  }
}

/** How long replicas of each model were at what, read when it is scraped. */
export function exposeModelTimes(registry: Registry, times: ModelTimes): void {
  liveGauge(
    registry,
    {
      name: "penstock_gateway_model_replica_seconds",
      help: "Replica time of each model since the gateway started: `cold_start`, `idle` and `busy`.",
      labelNames: ["model", "phase"],
    },
    () =>
      times
        .totals()
        .flatMap(({ model, coldStartSeconds, idleSeconds, busySeconds }) => [
          [{ model, phase: "cold_start" }, coldStartSeconds] as const,
          [{ model, phase: "idle" }, idleSeconds] as const,
          [{ model, phase: "busy" }, busySeconds] as const,
        ]),
  );
}
