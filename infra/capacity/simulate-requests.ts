import { FleetRun } from "./fleet-run.ts";
import { Heap } from "./heap.ts";
import { seeded } from "./random.ts";
import { nodeResults, type RunResult } from "./result.ts";
import { groupsOf, type Scenario } from "./scenario.ts";
import { pick, Targets, type Weighted } from "./targets.ts";
import { binSeconds } from "./trace/load.ts";
import type { RequestColumns } from "./trace/requests.ts";

/** Told how far a simulation is, 0 to 1. */
export type OnProgress = (share: number) => void;

/** Requests between two tellings of progress. */
const progressEvery = 20_000;

/**
 * Replays every request: queues, batches, replicas that start and stop, nodes. The same for the same input. `seconds`: how
 * long the trace lasts; cost is counted so long.
 */
export function simulateRequests(
  scenario: Scenario,
  { columns, seconds }: { readonly columns: RequestColumns; readonly seconds: number },
  onProgress?: OnProgress,
): RunResult {
  const groups = groupsOf(scenario);
  const starts = new Heap<FleetRun>();
  const random = seeded(scenario.settings.seed);
  const targets = new Targets(scenario);
  const byModel = columns.models.map((name) => ({ name, targets: targets.of(name) }));
  const demand = demandOf(scenario, columns, byModel);
  const runs = scenario.fleets.map((simulated, fleet) => {
    const group = groups.get(simulated.fleet.pool);
    if (group === undefined) throw new Error(`the plan has no pool ${simulated.fleet.pool}`);
    const run: FleetRun = new FleetRun(simulated, {
      scenario,
      group,
      random,
      demand: demand[fleet] ?? [],
      onStart: (at) => starts.push(at, run),
    });
    return run;
  });
  const unknownModels = new Map<string, number>();
  let nextPoll = binSeconds;
  const passTo = (until: number): void => {
    for (;;) {
      const at = Math.min(nextPoll, starts.first);
      if (at > until) return;
      if (starts.first <= nextPoll) starts.pop()?.ready(at);
      else {
        for (const run of runs) run.poll(at);
        for (const group of groups.values()) group.advance(at);
        nextPoll += binSeconds;
      }
    }
  };
  for (let index = 0; index < columns.size; index += 1) {
    const at = columns.at(index);
    passTo(at);
    const model = byModel[columns.model(index)];
    const target = pick(model?.targets ?? [], random);
    if (target === null) {
      const name = model?.name ?? "";
      unknownModels.set(name, (unknownModels.get(name) ?? 0) + 1);
      continue;
    }
    const inputTokens = Math.max(1, columns.input(index));
    const work = { arrivedMs: at * 1_000, inputTokens, outputTokens: columns.output(index), model: target.model };
    runs[target.fleet]?.arrive(work, at);
    if (index % progressEvery === 0) onProgress?.(index / columns.size);
  }
  passTo(seconds);
  for (const group of groups.values()) group.advance(seconds);
  const nodes = nodeResults(scenario, groups);
  for (const run of runs) run.finish(seconds);
  return {
    scenario,
    resolution: "requests",
    seconds,
    fleets: scenario.fleets.flatMap((simulated, at) => {
      const tally = runs[at]?.tally;
      return tally === undefined ? [] : [{ simulated, tally, nodeSeconds: nodes.ofFleet(at) }];
    }),
    groups: nodes.groups,
    unknownModels,
    gaps: scenario.gaps,
  };
}

/** Requests of the whole trace for each model of each fleet: what replicas that are there from the start have loaded. */
function demandOf(
  { fleets }: Scenario,
  columns: RequestColumns,
  byModel: readonly { readonly targets: readonly Weighted[] }[],
): number[][] {
  const counts = byModel.map(() => 0);
  for (let index = 0; index < columns.size; index += 1) {
    counts[columns.model(index)] = (counts[columns.model(index)] ?? 0) + 1;
  }
  const demand = fleets.map(({ fleet }) => fleet.models.map(() => 0));
  for (const [at, { targets }] of byModel.entries()) {
    for (const { target, share } of targets) {
      const ofFleet = demand[target.fleet];
      if (ofFleet !== undefined) ofFleet[target.model] = (ofFleet[target.model] ?? 0) + share * (counts[at] ?? 0);
    }
  }
  return demand;
}
