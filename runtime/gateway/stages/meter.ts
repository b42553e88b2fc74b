import { Counter, Histogram, type Registry } from "prom-client";
import { createRegistry, liveGauge } from "../../lib/metrics.ts";
import { modelStates } from "../../contracts/model.ts";
import type { ModelRegistry } from "../registry/registry.ts";
import type { EndpointPath } from "../api/endpoints.ts";
import type { Holds } from "./hold.ts";

/** How a request ended, as metrics count it. */
export interface Ending {
  readonly endpoint: EndpointPath;
  /** A configured model, or `unknown`: clients cannot add label values. */
  readonly model: string;
  /** HTTP status, `client_left` or `cut`. */
  readonly status: string;
  readonly seconds: number;
}

/** Counts every request once, when it has really ended. */
export class Meter {
  readonly registry: Registry;
  readonly #requests: Counter<"endpoint" | "model" | "status">;
  readonly #seconds: Histogram<"endpoint" | "model">;

  constructor(models: ModelRegistry, holds: Holds) {
    this.registry = createRegistry("penstock_gateway");
    this.#requests = new Counter({
      name: "penstock_gateway_requests_total",
      help: "Requests that ended, by HTTP status, `client_left`, or `cut` for a stream that an engine broke.",
      labelNames: ["endpoint", "model", "status"],
      registers: [this.registry],
    });
    this.#seconds = new Histogram({
      name: "penstock_gateway_request_seconds",
      help: "Time from a request's arrival to its last byte.",
      labelNames: ["endpoint", "model"],
      buckets: [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300],
      registers: [this.registry],
    });
    liveGauge(
      this.registry,
      { name: "penstock_gateway_held_requests", help: "Requests that wait for a model to load.", labelNames: [] },
      () => [[{}, holds.waiting.requests]],
    );
    liveGauge(
      this.registry,
      {
        name: "penstock_gateway_model_state",
        help: "1 for the state that a model is in.",
        labelNames: ["model", "state"],
      },
      () =>
        models.catalog.all.flatMap((model) => {
          const { state } = models.stateOf(model);
          return modelStates.map((each) => [{ model: model.spec.id, state: each }, each === state ? 1 : 0] as const);
        }),
    );
  }

  record({ endpoint, model, status, seconds }: Ending): void {
    this.#requests.inc({ endpoint, model, status });
    this.#seconds.observe({ endpoint, model }, seconds);
  }
}
