import type { Policy } from "./policy.ts";
import { consistentHashing } from "./policies/chwbl.ts";
import { leastLoad } from "./policies/least-load.ts";
import { leastPendingTokens } from "./policies/least-pending-tokens.ts";
import { powerOfTwo } from "./policies/power-of-two.ts";
import { predictedCost } from "./policies/predicted-cost.ts";
import { roundRobin } from "./policies/round-robin.ts";
import { session } from "./policies/session.ts";
import { stickyUntilSaturated } from "./policies/sticky.ts";
import { weighted } from "./policies/weighted.ts";

/** All policies, by the name that an operator writes. */
export const policies = {
  round_robin: roundRobin,
  power_of_two: powerOfTwo,
  least_load: leastLoad,
  least_pending_tokens: leastPendingTokens,
  session,
  chwbl: consistentHashing,
  weighted,
  sticky_until_saturated: stickyUntilSaturated,
  predicted_cost: predictedCost,
} as const satisfies Record<string, Policy>;

export type PolicyName = keyof typeof policies;
/** The names of all policies, for a schema or a message. */
export const policyNames = Object.keys(policies) as [PolicyName, ...PolicyName[]]; // the keys of a constant table
export const defaultPolicy: PolicyName = "predicted_cost";
