import type { Agents } from "../fleet/agents.ts";
import type { ModelTimes, ReplicaPhase } from "../metering/model-times.ts";
import type { Catalog } from "../registry/catalog.ts";
import type { ModelReport } from "../../contracts/agent.ts";

/** Tells `times` after each heartbeat what every replica of a model is doing, so that idle and loading time can be billed. */
export function observeModels(agents: Agents, { catalog, times }: { catalog: Catalog; times: ModelTimes }): void {
  agents.onChange(() => {
    const now = performance.now();
    const names = new Map(catalog.all.map(({ name, spec }) => [name, spec.id]));
    for (const { url, last, reachable, stale } of agents.all) {
      for (const report of last?.models ?? []) {
        const model = names.get(report.model_id);
        if (model !== undefined)
          times.observe({ model, replica: url }, reachable && !stale ? phaseOf(report) : null, now);
      }
    }
  });
}

function phaseOf({ cache_state, progress, running }: ModelReport): ReplicaPhase | null {
  if (cache_state === "READY") return running > 0 ? "busy" : "idle";
  return progress === null ? null : "cold_start";
}
