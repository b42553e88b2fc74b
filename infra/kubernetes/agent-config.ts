import { defaultPorts } from "../../runtime/contracts/names.ts";
import type { CloudPlan, PlannedFleet, PlannedModel } from "../plan/plan.ts";

/** Folders in an agent's pod. */
export const agentDirectories = { models: "/models", state: "/var/lib/penstock" } as const;

/** How long an engine may take to stop once its requests have ended. */
export const stopSeconds = 30;

/** An engine gets this many times the planned loading time before it counts as stuck, and at least the agent's default. */
const patience = { times: 4, minimumSeconds: 1_200 };

/** An agent's config file: `runtime/agent/config.ts` says what is in one. No secret is. */
export function agentConfigOf(plan: CloudPlan, fleet: PlannedFleet): Readonly<Record<string, unknown>> {
  const served = atOnce(plan, fleet);
  return {
    host: "0.0.0.0",
    port: defaultPorts.agent,
    // The folder is one for all agents of the node, and so is its budget: each agent counts everything in it.
    cache: {
      directory: agentDirectories.models,
      budgetGiB: Math.floor(fleet.pod.cacheGiB * Math.max(1, fleet.replicasPerNode)),
    },
    stateDirectory: agentDirectories.state,
    drainSeconds: fleet.drainSeconds,
    readySeconds: Math.max(patience.minimumSeconds, patience.times * fleet.transitions.loadSeconds),
    stopSeconds,
    // Karpenter and AKS turn a notice into an eviction, and so into SIGTERM; pods cannot reach the metadata service.
    reclaim: "none",
    serve: served.map(({ spec, pinned }) => ({
      model: spec,
      engine: fleet.engine,
      pinned,
      ...(fleet.idle === null ? {} : { idle: fleet.idle }),
    })),
    prefetch: prefetched(plan, fleet, served).map(({ spec }) => spec),
  };
}

/**
 * Models that a new replica brings up by itself: all, where they fit on its GPUs together; otherwise those that are to be
 * there always. Workers of a replica over several nodes learn what to join from this alone.
 */
function atOnce(plan: CloudPlan, fleet: PlannedFleet): PlannedModel[] {
  const models = modelsOf(plan, fleet);
  if (models.length <= fleet.residentModels) return models;
  const wanted = models.filter(({ warm, pinned }) => warm || pinned);
  const chosen = fleet.nodesPerReplica > 1 && wanted.length === 0 ? models : wanted;
  return chosen.slice(0, fleet.residentModels);
}

/** The others, in the stack's order, as far as their files fit into the replica's share of the disk. */
function prefetched(plan: CloudPlan, fleet: PlannedFleet, served: readonly PlannedModel[]): PlannedModel[] {
  let left = fleet.pod.cacheGiB - served.reduce((sum, { weightsGiB }) => sum + weightsGiB, 0);
  return modelsOf(plan, fleet).filter((model) => {
    if (served.includes(model) || model.weightsGiB > left) return false;
    left -= model.weightsGiB;
    return true;
  });
}

function modelsOf({ models }: CloudPlan, fleet: PlannedFleet): PlannedModel[] {
  return models.filter((model) => model.fleet === fleet.name);
}
