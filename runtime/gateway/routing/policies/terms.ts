import type { ReplicaState, RouteContext, RouteRequest } from "../policy.ts";

/** Tokens of this prompt that a replica would have to prefill. */
export function uncachedTokens(request: RouteRequest, context: RouteContext, index: number): number {
  return Math.max(0, request.promptTokens - (context.cachedTokens[index] ?? 0));
}

/** `prefillWork` that a replica has yet to do, for others than this gateway too. */
export function pendingTokens(replica: ReplicaState, context: RouteContext): number {
  return replica.pendingTokens + replica.foreignWaiting * context.meanWork;
}

/** Requests of which a replica has not shown a first byte. */
export function queueLength(replica: ReplicaState): number {
  return replica.prefilling + replica.foreignWaiting;
}

/** Requests on a replica. */
export function load(replica: ReplicaState): number {
  return replica.inFlight + replica.foreignWaiting;
}
