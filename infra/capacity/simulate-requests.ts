import { FleetRun } from "./fleet-run.ts";
import { Heap } from "./heap.ts";
import type { NodeGroup } from "./nodes.ts";
import { seeded, type Random } from "./random.ts";
import { nodeResults, type RunResult } from "./result.ts";
import { groupsOf, type Scenario } from "./scenario.ts";
import { pick, Targets, type Weighted } from "./targets.ts";
import { binSeconds } from "./trace/load.ts";
import type { RequestColumns } from "./trace/requests.ts";

/** Told how far a simulation is, 0 to 1. */
export type OnProgress = (share: number) => void;

/** Requests between two tellings of progress. */
const progressEvery = 20_000;

/** A model that the trace names, and who takes its requests. */
interface NamedModel {
  readonly name: string | null;
  readonly targets: readonly Weighted[];
}

/**
 * Replays every request: queues, batches, replicas that start and stop, nodes. The same for the same input. `seconds`: how
 * long the trace lasts; cost is counted so long.
 */
export function simulateRequests(
  scenario: Scenario,
  { columns, seconds }: { readonly columns: RequestColumns; readonly seconds: number },
  onProgress?: OnProgress,
): RunResult {
  const world = new World(scenario, columns);
  for (let index = 0; index < columns.size; index += 1) {
    world.arrive(index);
    if (index % progressEvery === 0) onProgress?.(index / columns.size);
  }
  return world.finished(seconds);
}

/** All fleets, their nodes, and the clock. */
class World {
  readonly #scenario: Scenario;
  readonly #columns: RequestColumns;
  readonly #random: Random;
  readonly #models: readonly NamedModel[];
  readonly #groups: ReadonlyMap<string, NodeGroup>;
  readonly #runs: readonly FleetRun[];
  /** By the time at which a replica of theirs is ready. */
  readonly #starts = new Heap<FleetRun>();
  readonly #unknownModels = new Map<string, number>();
  #nextPoll = binSeconds;

  constructor(scenario: Scenario, columns: RequestColumns) {
    this.#scenario = scenario;
    this.#columns = columns;
    this.#random = seeded(scenario.settings.seed);
    this.#groups = groupsOf(scenario);
    const targets = new Targets(scenario);
    this.#models = columns.models.map((name) => ({ name, targets: targets.of(name) }));
    const demand = demandOf(scenario, columns, this.#models);
    this.#runs = scenario.fleets.map((_, at) => this.#runOf(at, demand[at] ?? []));
  }

  /** The next request of the trace comes. */
  arrive(index: number): void {
    const columns = this.#columns;
    const at = columns.at(index);
    this.#passTo(at);
    const model = this.#models[columns.model(index)];
    const target = pick(model?.targets ?? [], this.#random);
    if (target === null) {
      const name = model?.name ?? "";
      this.#unknownModels.set(name, (this.#unknownModels.get(name) ?? 0) + 1);
      return;
    }
    const inputTokens = Math.max(1, columns.input(index));
    const work = { arrivedMs: at * 1_000, inputTokens, outputTokens: columns.output(index), model: target.model };
    this.#runs[target.fleet]?.arrive(work, at);
  }

  /** The trace is over at `seconds`: what was paid for until then, and answers to what is open. */
  finished(seconds: number): RunResult {
    this.#passTo(seconds);
    for (const group of this.#groups.values()) group.advance(seconds);
    const nodes = nodeResults(this.#scenario, this.#groups);
    for (const run of this.#runs) run.finish(seconds);
    return {
      scenario: this.#scenario,
      resolution: "requests",
      seconds,
      fleets: this.#scenario.fleets.flatMap((simulated, at) => {
        const tally = this.#runs[at]?.tally;
        return tally === undefined ? [] : [{ simulated, tally, nodeSeconds: nodes.ofFleet(at) }];
      }),
      groups: nodes.groups,
      unknownModels: this.#unknownModels,
      gaps: this.#scenario.gaps,
    };
  }

  #runOf(at: number, demand: readonly number[]): FleetRun {
    const simulated = this.#scenario.fleets[at];
    const group = simulated === undefined ? undefined : this.#groups.get(simulated.fleet.pool);
    if (simulated === undefined || group === undefined) throw new Error("every fleet has a pool in the plan");
    const run: FleetRun = new FleetRun(simulated, {
      scenario: this.#scenario,
      group,
      random: this.#random,
      demand,
      onStart: (readyAt) => this.#starts.push(readyAt, run),
    });
    return run;
  }

  #passTo(until: number): void {
    for (;;) {
      const at = Math.min(this.#nextPoll, this.#starts.first);
      if (at > until) return;
      if (this.#starts.first <= this.#nextPoll) this.#starts.pop()?.ready(at);
      else {
        for (const run of this.#runs) run.poll(at);
        for (const group of this.#groups.values()) group.advance(at);
        this.#nextPoll += binSeconds;
      }
    }
  }
}

/** Requests of the whole trace for each model of each fleet: what replicas that are there from the start have loaded. */
function demandOf(
  { fleets }: Scenario,
  columns: RequestColumns,
  models: readonly { readonly targets: readonly Weighted[] }[],
): number[][] {
  const counts = models.map(() => 0);
  for (let index = 0; index < columns.size; index += 1) {
    counts[columns.model(index)] = (counts[columns.model(index)] ?? 0) + 1;
  }
  const demand = fleets.map(({ fleet }) => fleet.models.map(() => 0));
  for (const [at, { targets }] of models.entries()) {
    for (const { target, share } of targets) {
      const ofFleet = demand[target.fleet];
      if (ofFleet !== undefined) ofFleet[target.model] = (ofFleet[target.model] ?? 0) + share * (counts[at] ?? 0);
    }
  }
  return demand;
}
