import { BinFleet } from "./bin-fleet.ts";
import { nodeResults, type RunResult } from "./result.ts";
import { groupsOf, type Scenario, type SimulatedFleet } from "./scenario.ts";
import type { OnProgress } from "./simulate-requests.ts";
import { SteadyState } from "./steady.ts";
import { Targets } from "./targets.ts";
import { binSeconds, type BinnedModel, type Load } from "./trace/load.ts";

/** Bins between two tellings of progress. */
const progressEvery = 50_000;

/** Lengths that stand for a fleet's requests, of each of its sources. */
const sampleSize = 8_192;

/** What comes to a fleet from one model of the trace. */
interface Source {
  readonly binned: BinnedModel;
  readonly share: number;
  readonly model: number;
  /** Mean tokens of a request. */
  readonly means: { readonly input: number; readonly output: number };
}

interface Run {
  readonly simulated: SimulatedFleet;
  readonly sources: readonly Source[];
  readonly steady: readonly SteadyState[];
  readonly fleet: BinFleet;
}

/**
 * Goes over the trace in steps of 15 s: requests are rates, latencies those of an even load at that rate
 * (`steady.ts`), replicas and nodes are counted as in the simulation of single requests. Its cost is by the bin, whatever
 * the rate: a year is two million of them. The same for the same input.
 */
export function simulateBins(scenario: Scenario, load: Load, onProgress?: OnProgress): RunResult {
  const groups = groupsOf(scenario);
  const targets = new Targets(scenario);
  const unknownModels = new Map<string, number>();
  for (const { model, counts } of load.binned) {
    if (targets.of(model).length > 0) continue;
    unknownModels.set(
      model ?? "",
      counts.reduce((sum, count) => sum + count, 0),
    );
  }
  const gaps: string[] = [];
  const { hold } = scenario.plan.gateway.config;
  const runs = scenario.fleets.map((simulated, at): Run => {
    const group = groups.get(simulated.fleet.pool);
    if (group === undefined) throw new Error(`the plan has no pool ${simulated.fleet.pool}`);
    const sources = sourcesOf(load, targets, at);
    const steady = steadyOf(scenario, simulated, sources);
    gaps.push(...gapsOf(simulated, sources));
    const fleet = new BinFleet(simulated, { group, steady, slo: scenario.settings.slo, hold });
    return { simulated, sources, steady, fleet };
  });
  const bins = Math.ceil(load.seconds / binSeconds - 1e-9);
  for (let bin = 0; bin < bins; bin += 1) {
    const now = bin * binSeconds;
    const seconds = Math.min(binSeconds, load.seconds - now);
    for (const { fleet, sources, steady } of runs) fleet.pass(now, seconds, inBin(bin, sources, steady[0]));
    for (const group of groups.values()) group.advance(now + seconds);
    if (bin % progressEvery === 0) onProgress?.(bin / bins);
  }
  for (const { fleet } of runs) fleet.finish();
  const nodes = nodeResults(scenario, groups);
  return {
    scenario,
    resolution: "bins",
    seconds: load.seconds,
    fleets: runs.map(({ simulated, fleet }, at) => ({
      simulated,
      tally: fleet.tally,
      nodeSeconds: nodes.ofFleet(at),
    })),
    groups: nodes.groups,
    unknownModels,
    gaps: [...scenario.gaps, ...gaps],
  };
}

/** Requests of a bin, and how many of mean length their tokens come to. */
function inBin(
  bin: number,
  sources: readonly Source[],
  steady: SteadyState | undefined,
): { readonly requests: number; readonly work: number } {
  let requests = 0;
  let work = 0;
  for (const { binned, share, means } of sources) {
    const count = (binned.counts[bin] ?? 0) * share;
    if (count === 0) continue;
    requests += count;
    if (binned.tokens === null || steady === undefined) {
      work += count;
      continue;
    }
    const { input, output } = steady.tokenMs;
    const mean = means.input * input + means.output * output;
    const spent = (binned.tokens.input[bin] ?? 0) * input + (binned.tokens.output[bin] ?? 0) * output;
    work += Math.max(0.01 * count, mean > 0 ? (share * spent) / mean : count);
  }
  return { requests, work };
}

function sourcesOf(load: Load, targets: Targets, fleet: number): Source[] {
  return load.binned.flatMap((binned) =>
    targets
      .of(binned.model)
      .filter(({ target }) => target.fleet === fleet)
      .map(({ target, share }) => ({
        binned,
        share,
        model: target.model,
        means: { input: meanOf(binned.lengths.input), output: meanOf(binned.lengths.output) },
      })),
  );
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
}

/** Of the model with the most requests, on each kind of node; all requests' lengths together. */
function steadyOf({ settings }: Scenario, simulated: SimulatedFleet, sources: readonly Source[]): SteadyState[] {
  const weights = sources.map(({ binned, share }) => share * binned.counts.reduce((sum, count) => sum + count, 0));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const heaviest = sources[weights.indexOf(Math.max(...weights))]?.model ?? 0;
  const lengths = { input: [] as number[], output: [] as number[] };
  for (const [at, { binned }] of sources.entries()) {
    const some = Math.ceil((sampleSize * (weights[at] ?? 0)) / Math.max(1e-9, total));
    lengths.input.push(...binned.lengths.input.slice(0, some));
    lengths.output.push(...binned.lengths.output.slice(0, some));
  }
  const { contextTokens } = simulated.fleet;
  const options = { slo: settings.slo, contextTokens, cachedShare: settings.cachedShare };
  return (simulated.engines[heaviest] ?? []).map(({ model }) => new SteadyState(model, lengths, options));
}

function gapsOf({ fleet }: SimulatedFleet, sources: readonly Source[]): string[] {
  const models = new Set(sources.map(({ model }) => model));
  if (models.size < 2 && fleet.models.length === 1) return [];
  if (sources.length === 0) return [];
  return [
    `${fleet.name}: in bins its models count as one that is always loaded; loads and wakes are in --resolution requests`,
  ];
}
