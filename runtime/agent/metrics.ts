import type { Registry } from "prom-client";
import { modelStates } from "../contracts/model.ts";
import { createRegistry, liveGauge, type GaugeRow } from "../lib/metrics.ts";
import type { ModelCache } from "./cache/cache.ts";
import type { GpuSlots } from "./gpus/slots.ts";
import type { Lifecycle } from "./models/lifecycle.ts";
import type { ModelRecord } from "./models/record.ts";

/** Where the metrics are read from, when they are scraped. */
export interface MetricsSources {
  readonly lifecycle: Lifecycle;
  readonly cache: ModelCache;
  readonly gpus: GpuSlots;
}

/** The agent's Prometheus metrics. */
export function agentMetrics({ lifecycle, cache, gpus }: MetricsSources): Registry {
  const registry = createRegistry("penstock_agent");
  addModels(registry, lifecycle);
  addEngines(registry, lifecycle);
  liveGauge(
    registry,
    { name: "penstock_agent_cache_bytes", help: "Bytes of models on the disk cache.", labelNames: [] },
    () => [[{}, cache.sizeBytes]],
  );
  liveGauge(
    registry,
    {
      name: "penstock_agent_gpu_memory_bytes",
      help: "Memory of each GPU: total, used by all processes, reserved for models.",
      labelNames: ["gpu", "kind"],
    },
    () =>
      gpus.snapshot().flatMap(({ index, memoryTotalBytes, memoryUsedBytes, reservedBytes }) => {
        const gpu = String(index);
        return [
          [{ gpu, kind: "total" }, memoryTotalBytes],
          [{ gpu, kind: "used" }, memoryUsedBytes],
          [{ gpu, kind: "reserved" }, reservedBytes],
        ] as const;
      }),
  );
  return registry;
}

function addModels(registry: Registry, lifecycle: Lifecycle): void {
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
      name: "penstock_agent_transition_seconds",
      help: "Measured time of the last transition of each kind of a model.",
      labelNames: ["model", "transition"],
    },
    () =>
      lifecycle.records.flatMap(({ id, measuredMs }) =>
        Object.entries(measuredMs).flatMap(([transition, ms]) =>
          ms === null ? [] : [[{ model: id, transition }, ms / 1_000] as const],
        ),
      ),
  );
}

/** A signal that an engine does not have, or has not told yet, has no line: never a 0. */
function addEngines(registry: Registry, lifecycle: Lifecycle): void {
  const perModel = (name: string, help: string, read: (record: ModelRecord) => number | null): void =>
    liveGauge(registry, { name: `penstock_agent_${name}`, help, labelNames: ["model"] }, () =>
      lifecycle.records.flatMap((record): GaugeRow<"model">[] => {
        const value = read(record);
        return value === null ? [] : [[{ model: record.id }, value]];
      }),
    );
  perModel("requests_running", "Requests that this agent relays to a model now.", ({ running }) => running);
  perModel("engine_crashes", "Times that a model's engine ended by itself.", ({ crashes }) => crashes);
  perModel("engine_running", "Requests in the engine's batch, as it says.", ({ load }) => load?.running ?? null);
  perModel("engine_waiting", "Requests in the engine's queue, as it says.", ({ load }) => load?.waiting ?? null);
  perModel("engine_kv_usage", "Share of the engine's KV cache in use, 0 to 1.", ({ load }) => load?.kv_usage ?? null);
  perModel(
    "engine_missing_signals",
    "Signals that the engine's metrics page should have and has not.",
    ({ load }) => load?.missing_signals.length ?? null,
  );
}
