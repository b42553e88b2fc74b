import type { Amount } from "../cost/money.ts";
import { nodesOf } from "./nodes.ts";
import { fleetCost } from "./report.ts";
import type { RunResult } from "./result.ts";
import type { Bounds, Scenario } from "./scenario.ts";

/** One try of bounds. */
export interface Trial {
  readonly bounds: Bounds;
  readonly goodShare: number;
  readonly cost: Amount;
  readonly nodeHours: number;
  readonly replicaHours: number;
  /** Of 95 % of the requests, at most: to the first token, and for each one after it. */
  readonly slowestSeconds: readonly [number, number];
}

/** The cheapest bounds of a fleet that were found to meet the SLO. */
export interface Suggestion {
  readonly fleet: string;
  readonly pool: string;
  /** Null: none meets it. */
  readonly best: Trial | null;
  /** With the bounds of the plan, in a pool without a maximum. */
  readonly planned: Trial;
  /** Nodes that the pool must allow for all its fleets at their maxima. */
  readonly poolNodes: number;
  readonly plannedPoolNodes: number;
  readonly simulations: number;
  /** What the search found, in words. */
  readonly why: readonly string[];
}

/** Runs one simulation: of requests or of bins. */
export type Simulate = (scenario: Scenario) => RunResult;

/** More replicas than this are not tried. */
const mostReplicas = 131_072;

/** What is tried for the requests a replica has before one more is started, as parts of the plan's. */
const targetShares = [4, 2, 1, 0.5, 0.25] as const;

/** Room above what a fleet of constant size needs, for queues that build up while replicas start. */
const headroom = 1.3;

/**
 * Searches each fleet's least cost that meets the SLO, one fleet after the other: first the constant size that does, then
 * for several targets the least minimum with room above. It tries bounds, and proves nothing of those it did not try.
 */
export function optimise(scenario: Scenario, simulate: Simulate, onTrial?: (text: string) => void): Suggestion[] {
  const whole = simulate(scenario);
  return whole.fleets
    .filter(({ tally }) => tally.requests > tally.tooLong)
    .map(({ simulated }) => new Search(scenario, simulated.fleet.name, { simulate, onTrial }).suggestion());
}

class Search {
  readonly #scenario: Scenario;
  readonly #name: string;
  readonly #simulate: Simulate;
  readonly #onTrial: ((text: string) => void) | undefined;
  readonly #trials = new Map<string, Trial>();

  constructor(
    scenario: Scenario,
    name: string,
    options: { readonly simulate: Simulate; readonly onTrial: ((text: string) => void) | undefined },
  ) {
    this.#scenario = scenario;
    this.#name = name;
    this.#simulate = options.simulate;
    this.#onTrial = options.onTrial;
  }

  suggestion(): Suggestion {
    const { bounds, fleet } = this.#fleet;
    const planned = this.#try(bounds);
    const constant = this.#constant(bounds.targetRequests);
    const best = constant === null ? null : this.#cheapest(constant);
    const pool = this.#scenario.plan.pools.find(({ group }) => group === fleet.pool);
    return {
      fleet: this.#name,
      pool: fleet.pool,
      best,
      planned,
      poolNodes: this.#poolNodes(best?.bounds.max ?? bounds.max),
      plannedPoolNodes: pool?.groupNodes.max ?? 0,
      simulations: this.#trials.size,
      why: this.#why(constant, best),
    };
  }

  get #fleet(): Scenario["fleets"][number] {
    const found = this.#scenario.fleets.find(({ fleet }) => fleet.name === this.#name);
    if (found === undefined) throw new Error(`no fleet ${this.#name}`);
    return found;
  }

  /** The least number of replicas that meets the SLO without any scaling; null when more of them help no more. */
  #constant(targetRequests: number): Trial | null {
    const at = (count: number): Trial => this.#try({ min: count, max: count, targetRequests });
    let low = 0;
    let high = 1;
    let trial = at(high);
    let plateaus = 0;
    while (!this.#meets(trial)) {
      if (high * 2 > mostReplicas || plateaus > 1) return null;
      low = high;
      high *= 2;
      const next = at(high);
      // Queues are half as long with twice as many; what does not change is the engine's own time.
      plateaus = isSame(next.slowestSeconds, trial.slowestSeconds) ? plateaus + 1 : 0;
      trial = next;
    }
    while (high - low > Math.max(1, Math.floor(low / 200))) {
      const middle = Math.floor((low + high) / 2);
      const next = at(middle);
      if (this.#meets(next)) [high, trial] = [middle, next];
      else low = middle;
    }
    return trial;
  }

  #cheapest(constant: Trial): Trial {
    const { fleet, bounds } = this.#fleet;
    const size = constant.bounds.max;
    const floor = fleet.replicas.min === 0 ? 0 : 1;
    const candidates = [constant];
    for (const share of targetShares) {
      const targetRequests = Math.max(1, Math.round(bounds.targetRequests * share));
      const max = Math.max(size + 1, Math.ceil(size * headroom));
      const found = this.#leastMin({ floor, size, max, targetRequests });
      if (found === null) continue;
      candidates.push(found);
      const tight = this.#try({ ...found.bounds, max: size });
      if (this.#meets(tight)) candidates.push(tight);
    }
    const isKnown = candidates.every(({ cost }) => cost.unbounded.length === 0);
    const price = ({ cost, nodeHours }: Trial): number => (isKnown ? cost.highMicroUsd : nodeHours);
    return candidates.reduce((best, next) => (price(next) < price(best) ? next : best));
  }

  #leastMin({
    floor,
    size,
    max,
    targetRequests,
  }: {
    readonly floor: number;
    readonly size: number;
    readonly max: number;
    readonly targetRequests: number;
  }): Trial | null {
    let low = floor - 1;
    let high = size;
    let best: Trial | null = null;
    while (high - low > Math.max(1, Math.floor(size / 100))) {
      const middle = Math.floor((low + high) / 2);
      const trial = this.#try({ min: middle, max, targetRequests });
      if (this.#meets(trial)) [high, best] = [middle, trial];
      else low = middle;
    }
    return best;
  }

  #meets({ goodShare }: Trial): boolean {
    return goodShare >= this.#scenario.settings.slo.share;
  }

  #try(bounds: Bounds): Trial {
    const key = `${bounds.min} ${bounds.max} ${bounds.targetRequests}`;
    const known = this.#trials.get(key);
    if (known !== undefined) return known;
    const { settings } = this.#scenario;
    const result = this.#simulate({
      ...this.#scenario,
      // The others have nodes of their own here, and no requests.
      fleets: [{ ...this.#fleet, bounds }],
      settings: { ...settings, bounds: { ...settings.bounds, [this.#name]: bounds } },
    });
    const [fleet] = result.fleets;
    if (fleet === undefined) throw new Error("a simulation has the fleet that it was given");
    const trial = {
      bounds,
      goodShare: fleet.tally.goodShare,
      cost: fleetCost(fleet, result),
      nodeHours: fleet.nodeSeconds.reduce((sum, each) => sum + each, 0) / 3_600,
      replicaHours: fleet.tally.replicaSeconds / 3_600,
      slowestSeconds: [fleet.tally.ttft.quantile(0.95) ?? 0, fleet.tally.tpot.quantile(0.95) ?? 0] as const,
    };
    this.#trials.set(key, trial);
    this.#onTrial?.(
      `${this.#name}: ${bounds.min} to ${bounds.max} replicas, ${bounds.targetRequests} requests each: ` +
        `${(100 * trial.goodShare).toFixed(2)} % in time`,
    );
    return trial;
  }

  #poolNodes(max: number): number {
    const { plan } = this.#scenario;
    const here = plan.fleets.filter(({ pool }) => pool === this.#fleet.fleet.pool);
    return here.reduce((sum, fleet) => sum + nodesOf(fleet, fleet.name === this.#name ? max : fleet.replicas.max), 0);
  }

  #why(constant: Trial | null, best: Trial | null): string[] {
    const { slo } = this.#scenario.settings;
    if (constant === null || best === null) {
      const most = Math.max(...[...this.#trials.values()].map(({ goodShare }) => goodShare));
      return [
        `no number of replicas has ${percent(slo.share)} in time; at most ${percent(most)}: ` +
          "the engine itself takes longer than the SLO; a faster GPU, more GPUs for each replica, or a longer SLO would do",
      ];
    }
    return [`a constant ${constant.bounds.max} replicas meet it with ${percent(constant.goodShare)} in time`];
  }
}

/** Within 5 %. */
function isSame(a: Trial["slowestSeconds"], b: Trial["slowestSeconds"]): boolean {
  return a.every((seconds, at) => Math.abs(seconds - (b[at] ?? 0)) <= 0.05 * seconds);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)} %`;
}
