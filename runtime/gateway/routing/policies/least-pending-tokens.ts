import type { Policy } from "../policy.ts";
import { pendingTokens } from "./terms.ts";

/** The least prefill ahead, in tokens. Blind to what this prompt would find in a cache. */
export const leastPendingTokens: Policy = {
  name: "least_pending_tokens",
  terms: (_request, _replicas, context) => [
    { name: "pending_tokens", cost: (replica) => pendingTokens(replica, context) },
  ],
};
