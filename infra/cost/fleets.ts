import type { CloudPlan, PlannedFleet } from "../plan/plan.ts";
import type { Assumptions } from "./assumptions.ts";
import { amountOf, dividedAmount, zero, type Amount } from "./money.ts";
import { replicasAt } from "./placement.ts";
import type { PricedPool } from "./pools.ts";
import { eachLevel, type FleetCost, type ModelCost, type TokenCost } from "./report.ts";

/** What each fleet costs, and a million tokens of it. */
export function fleetCosts(plan: CloudPlan, pools: readonly PricedPool[], assumptions: Assumptions): FleetCost[] {
  return plan.fleets.map((fleet) => {
    const priced = pools.find(({ pool }) => pool.name === fleet.pool);
    const part = priced?.fleets.get(fleet.name);
    return {
      name: fleet.name,
      pool: fleet.pool,
      models: fleet.models,
      replicas: eachLevel((level) => replicasAt(fleet, level, assumptions.expected)),
      nodes: eachLevel((level) => part?.nodes[level] ?? 0),
      cost: eachLevel((level) => part?.cost[level] ?? zero),
      perMillionTokens: priced === undefined ? null : tokenCost(fleet, priced, assumptions),
    };
  });
}

/**
 * USD of a million tokens: `USD an hour / (tokens a second x 0.0036 x utilisation)`, for a replica on the nodes that are
 * tried first. The output's price with prompts counted leaves room for what they take.
 */
function tokenCost(fleet: PlannedFleet, { pool }: PricedPool, assumptions: Assumptions): TokenCost | null {
  const { throughput, replicasPerNode } = fleet;
  const variant = pool.variants.find(({ capacity }) => fleet.spot || capacity !== "spot");
  if (throughput === null || variant === undefined) return null;
  const { utilisation, promptTokenWeight, promptTokensPerCompletionToken } = assumptions;
  const { usdPerHour, ceilingUsdPerHour } = variant.price;
  const millionsPerHour = throughput.outputTokensPerSecond * 0.0036 * utilisation;
  const name = `${variant.capacity} price of ${variant.size}`;
  const perMillion = (usd: number | null, share: number): number | null =>
    usd === null ? null : (usd / replicasPerNode / millionsPerHour) * share;
  const of = (share: number): Amount =>
    amountOf(name, perMillion(usdPerHour, share), perMillion(ceilingUsdPerHour, share));
  const outputShare = 1 / (1 + promptTokensPerCompletionToken * promptTokenWeight);
  return {
    ...throughput,
    utilisation,
    outputOnly: of(1),
    output: of(outputShare),
    input: of(outputShare * promptTokenWeight),
  };
}

/** Each model's part of its fleet. */
export function modelCosts(plan: CloudPlan, fleets: readonly FleetCost[], assumptions: Assumptions): ModelCost[] {
  return fleets.flatMap((fleet) => {
    const stated = fleet.models.some((id) => assumptions.modelShares[id] !== undefined);
    const weights = fleet.models.map((id) => (stated ? (assumptions.modelShares[id] ?? 0) : 1));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    const parts = eachLevel((level) => dividedAmount(fleet.cost[level], weights));
    const shareSource = shareSourceOf(fleet, stated);
    return fleet.models.map((id, at) => ({
      id,
      fleet: fleet.name,
      share: sum === 0 ? 1 / weights.length : (weights[at] ?? 0) / sum,
      shareSource,
      cost: eachLevel((level) => parts[level][at] ?? zero),
      perMillionTokens: fleet.perMillionTokens,
      charged: plan.models.find((model) => model.id === id)?.price ?? null,
    }));
  });
}

function shareSourceOf({ models }: FleetCost, stated: boolean): ModelCost["shareSource"] {
  if (models.length === 1) return "the only model of its fleet";
  return stated ? "as stated" : "evenly among its fleet's models";
}
