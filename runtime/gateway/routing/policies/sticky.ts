import type { Policy } from "../policy.ts";
import { pendingTokens, uncachedTokens } from "./terms.ts";

/** A replica whose queue takes longer is saturated (llm-d's rule: peak prefill rate times the longest wait). */
const longestWaitMs = 5_000;

/** Stays where most of the prompt is cached until that replica is saturated; then the shortest queue, in tokens. */
export const stickyUntilSaturated: Policy = {
  name: "sticky_until_saturated",
  terms(request, _replicas, context) {
    return [
      {
        name: "saturated",
        cost: (replica) =>
          pendingTokens(replica, context) > replica.prefillTokensPerMs * longestWaitMs ? 1 + request.promptTokens : 0,
      },
      { name: "uncached", cost: (_, index) => uncachedTokens(request, context, index) },
      // Decides between equals: below one token in all.
      {
        name: "wait",
        cost: (replica) => {
          const waitMs = pendingTokens(replica, context) / replica.prefillTokensPerMs;
          return waitMs / (waitMs + longestWaitMs);
        },
      },
    ];
  },
};
