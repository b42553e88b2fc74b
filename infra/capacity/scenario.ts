import { PenstockError } from "../../runtime/contracts/errors.ts";
import type { CloudPlan, PlannedFleet, PlannedPool } from "../plan/plan.ts";
import { engineFor, type KnownEngine } from "./derived.ts";
import { NodeGroup } from "./nodes.ts";
import { floors } from "./schedule.ts";
import type { Slo } from "./tally.ts";

/** Other bounds of a fleet than the plan's. */
export interface Bounds {
  readonly min: number;
  readonly max: number;
  readonly targetRequests: number;
}

/** How a plan is simulated. */
export interface Settings {
  readonly slo: Slo;
  /** Part of every prompt that the engines' prefix caches have, 0 to 0.99. */
  readonly cachedShare: number;
  readonly withoutSpot: boolean;
  readonly seed: number;
  /** Models for requests that name none, with their shares; empty: those of the fleet with the most GPUs. */
  readonly mix: Readonly<Record<string, number>>;
  /** By the fleet's name; the pools of these fleets have no maximum. */
  readonly bounds: Readonly<Record<string, Bounds>>;
}

/** A fleet as both kinds of simulation read it. */
export interface SimulatedFleet {
  readonly fleet: PlannedFleet;
  readonly bounds: Bounds;
  /** Engine of each of its models, in the order of `fleet.models`; by the place of the kind of node in the pool. */
  readonly engines: readonly (readonly KnownEngine[])[];
  readonly floorAt: (atSeconds: number) => number;
}

/** A plan that can be simulated. */
export interface Scenario {
  readonly plan: CloudPlan;
  readonly settings: Settings;
  readonly fleets: readonly SimulatedFleet[];
  /** Where requests go whose model the trace does not name: model id to its share, which sum up to 1. */
  readonly mix: readonly { readonly model: string; readonly share: number }[];
  readonly gaps: readonly string[];
}

/** Prepares a plan. Throws `invalid_config` when bounds or models are named that the plan has not. */
export function scenarioOf(plan: CloudPlan, settings: Settings): Scenario {
  for (const name of Object.keys(settings.bounds)) {
    if (plan.fleets.some((fleet) => fleet.name === name)) continue;
    throw new PenstockError("invalid_config", `${plan.stack} has no fleet ${name}; it has ${namesOf(plan.fleets)}`);
  }
  const fleets = plan.fleets.map((fleet) => simulated(plan, fleet, settings));
  const gaps = fleets.flatMap(({ gaps: own }) => own);
  return { plan, settings, fleets, mix: mixOf(plan, settings.mix), gaps };
}

/** Nodes for one run of a simulation. */
export function groupsOf({ plan, settings }: Scenario): Map<string, NodeGroup> {
  const groups = Map.groupBy(plan.pools, ({ group }) => group);
  return new Map(
    [...groups].map(([name, pools]) => {
      const fleets = plan.fleets.filter(({ pool }) => pool === name);
      const options = {
        emptySeconds: emptySeconds[plan.cloud],
        nodeSeconds: Math.max(0, ...fleets.map(({ transitions }) => transitions.nodeSeconds)),
        withoutSpot: settings.withoutSpot,
        isUnlimited: fleets.some((fleet) => settings.bounds[fleet.name] !== undefined),
      };
      return [name, new NodeGroup(name, pools, options)];
    }),
  );
}

/** How long a node stays without pods: AKS's scale-down-unneeded-time, Karpenter's consolidateAfter. */
const emptySeconds = { azure: 600, aws: 300 } as const;

function simulated(
  plan: CloudPlan,
  fleet: PlannedFleet,
  settings: Settings,
): SimulatedFleet & { readonly gaps: readonly string[] } {
  const pools = plan.pools.filter(({ group }) => group === fleet.pool);
  const schedule = floors(fleet.scaling.schedule);
  const engines = fleet.models.map((id) => pools.map((pool) => engineOn(plan, { fleet, id, pool })));
  return {
    fleet,
    bounds: settings.bounds[fleet.name] ?? {
      ...fleet.replicas,
      targetRequests: fleet.scaling.targetRequests,
    },
    engines,
    floorAt: schedule.at,
    gaps: schedule.leftOut.map(
      (entry) => `${fleet.name}: the schedule ${entry} names days of the month; it is left out`,
    ),
  };
}

interface OnPool {
  readonly fleet: PlannedFleet;
  readonly id: string;
  readonly pool: PlannedPool;
}

function engineOn(plan: CloudPlan, { fleet, id, pool }: OnPool): KnownEngine {
  const model = plan.models.find((candidate) => candidate.id === id);
  const gpus = { gpu: pool.gpu.model, count: fleet.gpusPerReplica, nvlink: pool.gpu.nvlink };
  const known = model === undefined ? null : engineFor(fleet, model, gpus);
  if (known !== null) return known;
  throw new PenstockError(
    "invalid_config",
    `fleet ${fleet.name}: no speed is known of ${pool.gpu.model}; add it to infra/capacity/gpus.ts`,
  );
}

function mixOf(plan: CloudPlan, stated: Settings["mix"]): Scenario["mix"] {
  const all = plan.fleets.flatMap(({ models }) => models);
  const entries = Object.entries(stated);
  for (const [model] of entries) {
    if (all.includes(model)) continue;
    throw new PenstockError(
      "invalid_config",
      `${plan.stack} has no model ${model}; it has ${all.toSorted().join(", ")}`,
    );
  }
  const sum = entries.reduce((total, [, share]) => total + share, 0);
  if (sum > 0) return entries.map(([model, share]) => ({ model, share: share / sum }));
  const generates = plan.fleets.filter(({ engine }) => !("task" in engine) || engine.task === "generate");
  const [largest] = (generates.length > 0 ? generates : plan.fleets).toSorted((a, b) => mostGpus(b) - mostGpus(a));
  const models = largest?.models ?? [];
  return models.map((model) => ({ model, share: 1 / models.length }));
}

function mostGpus({ replicas, gpusPerReplica }: PlannedFleet): number {
  return replicas.max * gpusPerReplica;
}

function namesOf(fleets: readonly PlannedFleet[]): string {
  return fleets.map(({ name }) => name).join(", ");
}
