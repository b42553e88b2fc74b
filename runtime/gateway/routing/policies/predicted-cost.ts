import type { Policy } from "../policy.ts";
import { pendingTokens, uncachedTokens } from "./terms.ts";

/** What a ms of own prefill costs those who come after, where nothing that is displaced would be used again. */
const socialWeight = 2;
/** However much is used again, a displaced token counts no more often than that. */
const mostReuse = 0.9;

/**
 * Predicted time to first token, and the delay that the request imposes on others, both in ms. What is prefilled displaces
 * something else from a full cache; the share of it that is used again must be prefilled again and displaces in its turn,
 * which sums up to 1 / (1 - reuse).
 */
export const predictedCost: Policy = {
  name: "predicted_cost",
  terms(request, _replicas, context) {
    const reuse = Math.min(mostReuse, context.reuse);
    return [
      { name: "base", cost: (replica) => replica.baseMs },
      { name: "queue", cost: (replica) => pendingTokens(replica, context) / replica.prefillTokensPerMs },
      {
        name: "prefill",
        cost: (replica, index) => uncachedTokens(request, context, index) / replica.prefillTokensPerMs,
      },
      {
        name: "social",
        cost: (replica, index) =>
          ((socialWeight / (1 - reuse * replica.cacheFill)) * uncachedTokens(request, context, index)) /
          replica.prefillTokensPerMs,
      },
    ];
  },
};
