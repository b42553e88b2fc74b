import type { Policy } from "../../runtime/gateway/routing/policy.ts";
import { quantile } from "./figures.ts";
import type { Driver, Outcome } from "./routing-simulation.ts";
import type { TraceRequest } from "./routing-trace.ts";

/** A request is good when both hold. */
export interface Goal {
  readonly ttftMs: number;
  readonly tokenMs: number;
}

export const goal: Goal = { ttftMs: 5_000, tokenMs: 100 };
/** Share of requests that must be good at the highest speed. */
const goodShare = 0.95;

/** A line of the table. */
export interface Row {
  readonly policy: string;
  readonly ttftP50Ms: number;
  readonly ttftP95Ms: number;
  readonly ttftP99Ms: number;
  /** Prompt tokens that an engine found in its cache, 0 to 1. */
  readonly hitShare: number;
  /** Requests inside the goal, 0 to 1. */
  readonly goodput: number;
  readonly outputTokensPerSecond: number;
  /** Highest speed-up of each replay with 95 % of the requests inside the goal. */
  readonly capacities: readonly number[];
  /** The median of them. */
  readonly capacity: number;
}

/** Share of good requests. */
export function goodput(outcomes: readonly Outcome[]): number {
  return outcomes.filter(isGood).length / Math.max(1, outcomes.length);
}

function isGood({ ttftMs, tokenMs }: Outcome): boolean {
  return ttftMs <= goal.ttftMs && tokenMs <= goal.tokenMs;
}

/** One policy at one speed, over one or more runs. */
export function summarise(
  policy: string,
  runs: readonly (readonly Outcome[])[],
  capacities: readonly number[] = [],
): Row {
  const outcomes = runs.flat();
  const ttfts = outcomes.map(({ ttftMs }) => ttftMs);
  const sum = (of: (outcome: Outcome) => number): number => outcomes.reduce((total, outcome) => total + of(outcome), 0);
  const spanMs = runs.reduce((total, run) => total + run.reduce((last, { endMs }) => Math.max(last, endMs), 0), 0);
  return {
    policy,
    ttftP50Ms: quantile(ttfts, 0.5),
    ttftP95Ms: quantile(ttfts, 0.95),
    ttftP99Ms: quantile(ttfts, 0.99),
    hitShare: sum(({ cachedTokens }) => cachedTokens) / sum(({ promptTokens }) => promptTokens),
    goodput: goodput(outcomes),
    outputTokensPerSecond: (sum(({ outputTokens }) => outputTokens) / spanMs) * 1_000,
    capacities,
    capacity: quantile(capacities),
  };
}

/** Replays of one workload: the same trace with different noise. */
export interface Workload {
  readonly name: string;
  readonly traces: readonly (readonly TraceRequest[])[];
  /** Speed of the table's first columns. */
  readonly speed: number;
  readonly search: SpeedSearch;
}

/** Where the highest speed is looked for, and how finely: 1.02 is to 2 %. It is taken for granted that `low` holds. */
export interface SpeedSearch {
  readonly low: number;
  readonly high: number;
  readonly precision: number;
}

/** The row of one policy; one run after the other. */
export async function measure(driver: Driver, workload: Workload, policy: Policy): Promise<Row> {
  const runs: (readonly Outcome[])[] = [];
  const capacities: number[] = [];
  for (const trace of workload.traces) {
    runs.push(await driver.run(trace, policy, { speed: workload.speed }));
    const most = trace.length * (1 - goodShare);
    const holds = async (speed: number): Promise<boolean> => {
      let bad = 0;
      await driver.run(trace, policy, { speed, stops: (outcome) => (bad += Number(!isGood(outcome))) > most });
      return bad <= most;
    };
    capacities.push(await highestSpeed(workload.search, holds));
  }
  return summarise(policy.name, runs, capacities);
}

/** The highest speed that holds; what holds at one speed holds below it, but for noise. */
async function highestSpeed(
  { precision, ...range }: SpeedSearch,
  holds: (speed: number) => Promise<boolean>,
): Promise<number> {
  let { low, high } = range;
  while (high / low > precision) {
    const middle = Math.sqrt(low * high);
    if (await holds(middle)) low = middle;
    else high = middle;
  }
  return low;
}

const seconds = (ms: number): string => (ms / 1_000).toFixed(2);

/** Prints rows as a table. */
export function printRows({ name, speed, search }: Workload, rows: readonly Row[]): void {
  const lines = [
    `${name}, speed ${speed}: TTFT in s, hits and goodput as shares, goal ${goal.ttftMs / 1_000} s and ${goal.tokenMs} ms a token`,
    "policy                   p50     p95     p99    hits  goodput  tokens/s  capacity  of each seed",
    ...rows.map((row) =>
      [
        row.policy.padEnd(22),
        seconds(row.ttftP50Ms).padStart(6),
        seconds(row.ttftP95Ms).padStart(7),
        seconds(row.ttftP99Ms).padStart(7),
        row.hitShare.toFixed(3).padStart(7),
        row.goodput.toFixed(3).padStart(8),
        row.outputTokensPerSecond.toFixed(0).padStart(9),
        row.capacity.toFixed(2).padStart(9),
        ` ${row.capacities.map((capacity) => capacity.toFixed(2)).join(" ")}`,
      ].join(" "),
    ),
  ];
  process.stdout.write(`${[...lines, ...verdicts(rows, search)].join("\n")}\n\n`);
}

/** Whether the default policy beats those that others run by default. */
function verdicts(rows: readonly Row[], { high, precision }: SpeedSearch): string[] {
  const own = rows.find(({ policy }) => policy === "predicted_cost");
  if (own === undefined) return [];
  return rows
    .filter(({ policy }) => policy === "weighted" || policy === "chwbl")
    .map((row) => {
      const isBetter = own.capacity > row.capacity && own.ttftP95Ms <= row.ttftP95Ms;
      // Where both serve the fastest that is tried, nothing was compared.
      const isOpen = Math.min(own.capacity, row.capacity) * precision >= high;
      const verdict = isOpen ? "undecided, both serve all that is tried" : isBetter ? "met" : "MISSED";
      const [capacity, wait] = [own.capacity / row.capacity, own.ttftP95Ms / row.ttftP95Ms];
      return `predicted_cost has ${capacity.toFixed(2)} x the capacity and ${wait.toFixed(2)} x the TTFT p95 of ${row.policy}: ${verdict}`;
    });
}
