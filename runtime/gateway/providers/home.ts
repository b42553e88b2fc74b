import type { KnownAgent } from "../fleet/agents.ts";
import type { Deployment } from "../registry/catalog.ts";
import { secondsToReady } from "../scheduling/estimate.ts";
import { modelOn } from "../scheduling/place.ts";

/** Seconds until a model could answer on an agent of its own fleet; `Infinity` when none can be reached. */
export function secondsAtHome({ name, fleet }: Deployment, agents: readonly KnownAgent[]): number {
  const own = agents.filter((agent) => agent.fleet === fleet && agent.reachable && agent.last?.state !== "DRAINING");
  const sizeBytes = own.reduce((most, { cached }) => Math.max(most, cached.get(name) ?? 0), 0);
  const estimates = own.flatMap(({ url, last, cached }) =>
    last === null
      ? []
      : [
          secondsToReady(
            modelOn({ url, beat: last, cached }, { id: name, sizeBytes: sizeBytes === 0 ? null : sizeBytes }),
          ),
        ],
  );
  return Math.min(Infinity, ...estimates);
}
