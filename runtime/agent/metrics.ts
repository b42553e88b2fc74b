import type { Registry } from "prom-client";
import { modelStates } from "../contracts/model.ts";
import { createRegistry, liveGauge } from "../lib/metrics.ts";
import type { Lifecycle } from "./lifecycle.ts";

/** The agent's Prometheus metrics, read from the lifecycle when they are scraped. */
export function agentMetrics(lifecycle: Lifecycle): Registry {
  const registry = createRegistry("penstock_agent");
  liveGauge(
    registry,
    {
      name: "penstock_agent_model_state",
      help: "1 for the state that a model is in.",
      labelNames: ["model", "state"],
    },
    () =>
      lifecycle.records.flatMap(({ id, state }) =>
        modelStates.map((each) => [{ model: id, state: each }, each === state ? 1 : 0] as const),
      ),
  );
  liveGauge(
    registry,
    {
      name: "penstock_agent_requests_running",
      help: "Requests that the engine of a model is working on.",
      labelNames: ["model"],
    },
    () => lifecycle.records.map(({ id, running }) => [{ model: id }, running]),
  );
  liveGauge(
    registry,
    {
      name: "penstock_agent_engine_crashes",
      help: "Times that the engine of a model ended by itself since the agent started.",
      labelNames: ["model"],
    },
    () => lifecycle.records.map(({ id, crashes }) => [{ model: id }, crashes]),
  );
  liveGauge(
    registry,
    {
      name: "penstock_agent_transition_seconds",
      help: "Measured time of the last download and load of a model.",
      labelNames: ["model", "transition"],
    },
    () =>
      lifecycle.records.flatMap(({ id, measuredMs }) =>
        (["download", "load"] as const).flatMap((transition) => {
          const ms = measuredMs[transition];
          return ms === null ? [] : [[{ model: id, transition }, ms / 1_000] as const];
        }),
      ),
  );
  return registry;
}
