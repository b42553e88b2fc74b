import type { Policy } from "../policy.ts";
import { pendingTokens, uncachedTokens } from "./terms.ts";

/** A replica whose queue takes longer is saturated (llm-d's rule: peak prefill rate times the longest wait). */
const longestWaitMs = 5_000;
/** A replica that holds less of the prompt is no home for it; a system prompt that all share makes none. */
const homeShare = 0.5;

/** Goes where most of the prompt is cached until that replica is saturated; otherwise to the shortest queue, in tokens. */
export function sticky(name: string, share: number): Policy {
  return {
    name,
    terms(request, _replicas, context) {
      const { promptTokens } = request;
      return [
        {
          name: "away_from_home",
          cost: (replica, index) => {
            const uncached = uncachedTokens(request, context, index);
            const saturated = pendingTokens(replica, context) > replica.prefillTokensPerMs * longestWaitMs;
            return saturated || uncached > (1 - share) * promptTokens ? promptTokens : uncached;
          },
        },
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
}

/** Sticky from half of the prompt on. */
export const stickyUntilSaturated = sticky("sticky_until_saturated", homeShare);
