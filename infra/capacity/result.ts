import type { NodeGroup } from "./nodes.ts";
import type { Scenario, SimulatedFleet } from "./scenario.ts";
import type { Tally } from "./tally.ts";

/** What a simulation came to. */
export interface RunResult {
  readonly scenario: Scenario;
  readonly resolution: "requests" | "bins";
  readonly seconds: number;
  readonly fleets: readonly FleetResult[];
  readonly groups: readonly GroupResult[];
  /** Requests for models that no fleet has, by the model's name. */
  readonly unknownModels: ReadonlyMap<string, number>;
  readonly gaps: readonly string[];
}

/** Of a fleet. */
export interface FleetResult {
  readonly simulated: SimulatedFleet;
  readonly tally: Tally;
  /** Seconds of nodes that its replicas were on, by kind of node. */
  readonly nodeSeconds: readonly number[];
}

/** Of a pool of the stack. */
export interface GroupResult {
  readonly group: NodeGroup;
  readonly nodeSeconds: readonly number[];
  readonly peakNodes: number;
}

/** What nodes came to, at the end of the trace. */
export function nodeResults(
  scenario: Scenario,
  groups: ReadonlyMap<string, NodeGroup>,
): Pick<RunResult, "groups"> & { readonly ofFleet: (at: number) => readonly number[] } {
  return {
    groups: [...groups.values()].map((group) => ({
      group,
      nodeSeconds: group.nodeSeconds(),
      peakNodes: group.peakNodes,
    })),
    ofFleet: (at) => {
      const fleet = scenario.fleets[at]?.fleet;
      return fleet === undefined ? [] : (groups.get(fleet.pool)?.nodeSecondsOf(fleet) ?? []);
    },
  };
}
