import type { Policy, ReplicaState } from "../policy.ts";
import { queueLength } from "./terms.ts";

/** Gateway API Inference Extension's defaults; the adapter's as for any other scorer. */
const weights = { queue: 2, kv: 2, prefix: 3, adapter: 1 };
/** Adapters that an engine holds at most, when it does not say (vLLM's `--max-loras` in most deployments). */
const adapterPlaces = 4;

/** The scorers of the Gateway API Inference Extension: queue, KV cache, prefix and adapter, each 0 to 1, weighted. */
export const weighted: Policy = {
  name: "weighted",
  terms(request, replicas, { cachedTokens }) {
    const queues = replicas.filter((replica) => replica.ready).map(queueLength);
    const longest = Math.max(0, ...queues);
    const shortest = Math.min(longest, ...queues);
    const queueScore = (replica: ReplicaState): number =>
      longest === shortest ? 1 : (longest - queueLength(replica)) / (longest - shortest);
    const prefixScore = (index: number): number => (cachedTokens[index] ?? 0) / Math.max(1, request.promptTokens);
    const { adapter } = request;
    return [
      { name: "queue", cost: (replica) => -weights.queue * queueScore(replica) },
      { name: "kv", cost: (replica) => -weights.kv * (1 - (replica.kvUsage ?? 0)) },
      { name: "prefix", cost: (_, index) => -weights.prefix * prefixScore(index) },
      ...(adapter === null
        ? []
        : [{ name: "adapter", cost: (replica: ReplicaState) => -weights.adapter * affinity(replica, adapter) }]),
    ];
  },
};

function affinity({ adapters }: ReplicaState, adapter: string): number {
  if (adapters.has(adapter)) return 1;
  return adapters.size < adapterPlaces ? 0.8 : 0;
}
