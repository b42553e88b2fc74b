import type { Policy, ReplicaState, RouteContext, Term } from "../policy.ts";
import { prefillWork } from "../prefill-work.ts";
import { pendingTokens, uncachedTokens } from "./terms.ts";

/** What a ms of own prefill costs those who come after, where nothing that it displaces would be used again. */
const socialWeight = 1;
/** What a ms of own prefill costs each request that is there before: it will be generating then, and pauses for that long. */
const streamWeight = 0.01;
/** However much is used again, a displaced token counts as prefilled at most 1 / (1 - that) times. */
const mostReuse = 0.9;
/** What a ms more until the end of an answer counts beside a ms more until its first token. */
const decodeWeight = 0.005;
/** Share of an answer's time that is lost where the KV cache is full, and how steeply that comes. */
const memory = { weight: 0.03, power: 4 };

/**
 * Predicted time to first token, and what the request costs others and itself later, all in ms:
 *
 * - `social`: others wait for its prefill too. What is prefilled displaces something from a full cache; the share of it
 *   that is used again must be prefilled again and displaces in its turn, which sums up to 1 / (1 - reuse). So prefixes
 *   that are used much stay where they are, and where little is used again the shortest queue wins.
 * - `streams`: those that are generating pause while the engine prefills.
 * - `decode`: each token of an answer takes longer where more is looked back on, shared or not. A full KV cache is as large
 *   as the weights or larger, so that it may double the time of a token.
 * - `adapter`: where the request's adapter is not loaded, it is loaded first.
 * - `memory`: an engine whose KV cache is nearly full lets requests wait, or throws them out and computes them anew.
 *
 * The weights were picked by hand from sweeps over Mooncake's conversation trace and workloads generated after it and after
 * llm-d's shared prefixes (`npm run bench:routing`), not derived; half and twice of each end within about 3 % of them.
 */
export const predictedCost: Policy = {
  name: "predicted_cost",
  terms(request, replicas, context) {
    const prefills = new Float64Array(replicas.length);
    let at = 0;
    for (const replica of replicas) {
      const uncached = uncachedTokens(request, context, at);
      prefills[at] = prefillWork(uncached, request.promptTokens - uncached) / replica.prefillTokensPerMs;
      at += 1;
    }
    const prefillMs = (_: ReplicaState, index: number): number => prefills[index] ?? 0;
    return [
      { name: "base", cost: (replica) => replica.baseMs },
      { name: "queue", cost: (replica) => pendingTokens(replica, context) / replica.prefillTokensPerMs },
      { name: "prefill", cost: prefillMs },
      { name: "social", cost: (replica, index) => weight(replica, context) * prefillMs(replica, index) },
      {
        name: "streams",
        cost: (replica, index) => streamWeight * replica.inFlight * prefillMs(replica, index),
      },
      ...(request.adapter === null ? [] : [adapterTerm(request.adapter)]),
      {
        name: "decode",
        cost: (replica) => (decodeWeight * replica.answerMs * replica.contextTokens) / replica.kvTokens,
      },
      {
        name: "memory",
        cost: (replica) => memory.weight * kvUsage(replica) ** memory.power * replica.answerMs,
      },
    ];
  },
};

function adapterTerm(adapter: string): Term {
  return { name: "adapter", cost: ({ adapters, adapterLoadMs }) => (adapters.has(adapter) ? 0 : adapterLoadMs) };
}

function weight(replica: ReplicaState, { reuse }: RouteContext): number {
  return socialWeight / (1 - Math.min(mostReuse, reuse) * replica.cacheFill);
}

/** As measured, or what this gateway's requests must hold, which counts shared prefixes more than once. */
function kvUsage(replica: ReplicaState): number {
  return replica.kvUsage ?? Math.min(1, replica.contextTokens / replica.kvTokens);
}
