import { Counter, type Registry } from "prom-client";
import { createRegistry, Distribution, liveGauge, liveHistogram } from "../../lib/metrics.ts";
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

/** Requests of one endpoint and model that ended. */
interface Ended {
  readonly seconds: Distribution;
  /** Since Prometheus looked last, by status. */
  readonly statuses: Map<string, number>;
}

const secondsBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300];

/** Counts every request once, when it has really ended. */
export class Meter {
  readonly registry: Registry;
  /** By endpoint and model. */
  readonly #ended = new Map<EndpointPath, Map<string, Ended>>();

  constructor(models: ModelRegistry, holds: Holds) {
    this.registry = createRegistry("penstock_gateway");
    const requests = new Counter({
      name: "penstock_gateway_requests_total",
      help: "Requests that ended, by HTTP status, `client_left`, or `cut` for a stream that an engine broke.",
      labelNames: ["endpoint", "model", "status"],
      registers: [this.registry],
      collect: () => {
        for (const [endpoint, model, { statuses }] of this.#all()) {
          for (const [status, count] of statuses) requests.inc({ endpoint, model, status }, count);
          statuses.clear();
        }
      },
    });
    liveHistogram(
      this.registry,
      {
        name: "penstock_gateway_request_seconds",
        help: "Time from a request's arrival to its last byte.",
        buckets: secondsBuckets,
      },
      () => this.#all().map(([endpoint, model, { seconds }]) => [{ endpoint, model }, seconds] as const),
    );
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
    let ofEndpoint = this.#ended.get(endpoint);
    if (ofEndpoint === undefined) this.#ended.set(endpoint, (ofEndpoint = new Map()));
    let ended = ofEndpoint.get(model);
    if (ended === undefined) {
      ended = { seconds: new Distribution(secondsBuckets), statuses: new Map() };
      ofEndpoint.set(model, ended);
    }
    ended.seconds.observe(seconds);
    ended.statuses.set(status, (ended.statuses.get(status) ?? 0) + 1);
  }

  #all(): (readonly [EndpointPath, string, Ended])[] {
    return [...this.#ended].flatMap(([endpoint, ofEndpoint]) =>
      [...ofEndpoint].map(([model, ended]) => [endpoint, model, ended] as const),
    );
  }
}
