import { amountOf, sumOf, type Amount } from "../cost/money.ts";
import { catalogue, nodePrice, type PriceBook } from "../cost/prices.ts";
import { overhead } from "./engine-model.ts";
import type { FleetResult, GroupResult, RunResult } from "./result.ts";
import type { Bounds } from "./scenario.ts";
import type { Slo } from "./tally.ts";
import { binSeconds } from "./trace/load.ts";

/** A latency, in seconds; null where nothing was served. */
interface Quantiles {
  readonly p50: number | null;
  readonly p95: number | null;
  readonly p99: number | null;
}

/** A fleet's part of a report. */
export interface FleetReport {
  readonly name: string;
  readonly pool: string;
  readonly models: readonly string[];
  readonly bounds: Bounds;
  readonly requests: number;
  readonly served: number;
  /** Longer than the fleet's context; not in the share. */
  readonly tooLong: number;
  /** No replica in time, or the gateway's queue was full. */
  readonly refused: number;
  /** Cut off at the end of a drain. */
  readonly cut: number;
  readonly ttftSeconds: Quantiles;
  readonly tpotSeconds: Quantiles;
  /** Part of the requests that fit which met the SLO, 0 to 1; null without requests. */
  readonly goodShare: number | null;
  /** Requests a second within the SLO, on average. */
  readonly goodput: number;
  readonly outputTokensPerSecond: number;
  readonly meetsSlo: boolean;
  readonly replicaHours: number;
  readonly peakReplicas: number;
  readonly coldStarts: number;
  readonly newNodeStarts: number;
  readonly modelLoads: number;
  readonly modelWakes: number;
  /** Times that one more replica was wanted and the pool was full. */
  readonly blocked: number;
  /** Of the nodes that its replicas were on. */
  readonly nodeHours: number;
  readonly cost: Amount;
  /** Where the engine's constants are from, for each model and kind of node. */
  readonly engines: readonly { readonly source: string; readonly isDerived: boolean }[];
}

/** A pool's part of a report. */
export interface PoolReport {
  readonly name: string;
  readonly peakNodes: number;
  /** The plan's. */
  readonly maxNodes: number;
  readonly nodeHours: number;
  /** All its nodes, floors and spares too. */
  readonly cost: Amount;
}

/** What `npm run capacity` answers. Costs are of the nodes alone, for the time of the trace. */
export interface CapacityReport {
  readonly version: 1;
  readonly stack: string;
  readonly trace: string;
  readonly seconds: number;
  readonly requests: number;
  readonly resolution: RunResult["resolution"];
  readonly slo: Slo;
  readonly fleets: readonly FleetReport[];
  readonly pools: readonly PoolReport[];
  readonly cost: Amount;
  /** Every fleet with requests does. */
  readonly meetsSlo: boolean;
  readonly gaps: readonly string[];
  readonly assumptions: readonly string[];
}

/** The report of a simulation. */
export function capacityReport(
  result: RunResult,
  trace: { readonly name: string; readonly requests: number; readonly gaps: readonly string[] },
  prices: PriceBook = catalogue,
): CapacityReport {
  const { scenario, seconds } = result;
  const fleets = result.fleets.map((fleet) => fleetReport(fleet, result, prices));
  const pools = result.groups.map((group) => poolReport(group, result, prices));
  return {
    version: 1,
    stack: scenario.plan.stack,
    trace: trace.name,
    seconds,
    requests: trace.requests,
    resolution: result.resolution,
    slo: scenario.settings.slo,
    fleets,
    pools,
    cost: sumOf(pools.map(({ cost }) => cost)),
    meetsSlo: fleets.every(({ meetsSlo, requests }) => requests === 0 || meetsSlo),
    gaps: [...trace.gaps, ...result.gaps, ...fleets.flatMap(fleetGaps), ...unknownGaps(result)],
    assumptions: assumptionsOf(result),
  };
}

/** USD of the nodes that a fleet's replicas were on; what has no price is named. */
export function fleetCost({ simulated, nodeSeconds }: FleetResult, result: RunResult, prices = catalogue): Amount {
  const group = result.groups.find(({ group: { name } }) => name === simulated.fleet.pool);
  return group === undefined ? sumOf([]) : nodesCost(nodeSeconds, group, { result, prices });
}

function fleetReport(fleet: FleetResult, result: RunResult, prices: PriceBook): FleetReport {
  const { simulated, tally, nodeSeconds } = fleet;
  const { bounds, engines } = simulated;
  const { slo } = result.scenario.settings;
  return {
    name: simulated.fleet.name,
    pool: simulated.fleet.pool,
    models: simulated.fleet.models,
    bounds,
    requests: Math.round(tally.requests),
    served: Math.round(tally.served),
    tooLong: Math.round(tally.tooLong),
    refused: Math.round(tally.refused),
    cut: Math.round(tally.cut),
    ttftSeconds: quantiles((share) => tally.ttft.quantile(share)),
    tpotSeconds: quantiles((share) => tally.tpot.quantile(share)),
    goodShare: tally.requests === 0 ? null : tally.goodShare,
    goodput: tally.good / result.seconds,
    outputTokensPerSecond: tally.outputTokens / result.seconds,
    meetsSlo: tally.goodShare >= slo.share,
    replicaHours: tally.replicaSeconds / 3_600,
    peakReplicas: tally.peakReplicas,
    coldStarts: tally.coldStarts,
    newNodeStarts: tally.newNodeStarts,
    modelLoads: tally.modelLoads,
    modelWakes: tally.modelWakes,
    blocked: tally.blocked,
    nodeHours: hours(nodeSeconds),
    cost: fleetCost(fleet, result, prices),
    engines: usedEngines(engines, nodeSeconds),
  };
}

/** Of the kinds of node that were used. */
function usedEngines(
  engines: FleetResult["simulated"]["engines"],
  nodeSeconds: readonly number[],
): FleetReport["engines"] {
  const used = engines.flatMap((each) => each.filter((_, variant) => (nodeSeconds[variant] ?? 0) > 0));
  return [...new Map(used.map(({ source, isDerived }) => [source, { source, isDerived }])).values()];
}

function poolReport(group: GroupResult, result: RunResult, prices: PriceBook): PoolReport {
  return {
    name: group.group.name,
    peakNodes: group.peakNodes,
    maxNodes: group.group.pools[0]?.groupNodes.max ?? 0,
    nodeHours: hours(group.nodeSeconds),
    cost: nodesCost(group.nodeSeconds, group, { result, prices }),
  };
}

function nodesCost(
  nodeSeconds: readonly number[],
  { group }: GroupResult,
  { result, prices }: { readonly result: RunResult; readonly prices: PriceBook },
): Amount {
  const { region } = result.scenario.plan;
  return sumOf(
    group.pools.flatMap((pool, variant) => {
      const nodeHours = (nodeSeconds[variant] ?? 0) / 3_600;
      if (nodeHours === 0) return [];
      const { usdPerHour, ceilingUsdPerHour } = nodePrice(pool, region, prices);
      const times = (usd: number | null): number | null => (usd === null ? null : usd * nodeHours);
      return amountOf(
        `${pool.capacity} price of ${pool.size} in ${region}`,
        times(usdPerHour),
        times(ceilingUsdPerHour),
      );
    }),
  );
}

function fleetGaps({ name, tooLong, requests, blocked, engines }: FleetReport): string[] {
  const share = ((100 * tooLong) / Math.max(1, requests)).toFixed(1);
  return [
    ...(tooLong > 0
      ? [`${name}: ${tooLong} requests (${share} %) are longer than its context: refused, not in the share`]
      : []),
    ...(blocked > 0 ? [`${name}: wanted one more replica ${blocked} times and its pool was full`] : []),
    ...engines.filter(({ isDerived }) => isDerived).map(({ source }) => `${name}: ${source}`),
  ];
}

function unknownGaps({ unknownModels, scenario }: RunResult): string[] {
  return [...unknownModels].map(
    ([model, count]) => `${Math.round(count)} requests for ${model}, which ${scenario.plan.stack} has not: left out`,
  );
}

function assumptionsOf({ scenario, resolution }: RunResult): string[] {
  const { settings, mix } = scenario;
  const models = mix.map(({ model, share }) => `${model} ${(100 * share).toFixed(0)} %`).join(", ");
  return [
    `Requests that name no model: ${models} (--models).`,
    `Engines have ${(100 * settings.cachedShare).toFixed(0)} % of every prompt in their prefix cache (--cached).`,
    `A step takes ${overhead.factor} times its kernels and ${overhead.stepMs} ms, a request ${overhead.requestMs} ms besides.`,
    settings.withoutSpot
      ? "No spot node is to be had (--without-spot)."
      : "Spot nodes are to be had whenever one is wanted, and stay (--without-spot: none is).",
    "What is there at second 0 is at the minimum and ready; second 0 is a Monday, 00:00 UTC. A node is paid for from its order on.",
    resolution === "requests"
      ? "Every request was simulated."
      : `Bins of ${binSeconds} s: requests are rates, latencies those of an even load (--resolution requests for single ones).`,
    "Cost is that of GPU nodes for the time of the trace; everything else: npm run cost.",
  ];
}

function quantiles(of: (share: number) => number | null): Quantiles {
  return { p50: of(0.5), p95: of(0.95), p99: of(0.99) };
}

function hours(seconds: readonly number[]): number {
  return seconds.reduce((sum, each) => sum + each, 0) / 3_600;
}
