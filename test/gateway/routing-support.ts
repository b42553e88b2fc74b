import { hashName } from "../../runtime/gateway/routing/prefix-hash.ts";
import type { Choice, ReplicaState, RouteContext, RouteRequest } from "../../runtime/gateway/routing/policy.ts";

/** A replica that is idle, ready and empty, but for what is said. */
export function replica(state: Partial<ReplicaState> & { readonly id: string }): ReplicaState {
  return {
    hash: hashName(state.id),
    ready: true,
    measuredWaiting: 0,
    measuredRunning: 0,
    kvUsage: 0,
    ageMs: 0,
    adapters: new Set(),
    adapterLoadMs: 1_000,
    inFlight: 0,
    prefilling: 0,
    pendingTokens: 0,
    contextTokens: 0,
    foreignWaiting: 0,
    prefillTokensPerMs: 20,
    baseMs: 30,
    answerMs: 4_500,
    kvTokens: 400_000,
    cacheFill: 1,
    ...state,
  };
}

/** What a test says of a choice; the rest is a prompt of 2,048 tokens of which nobody holds anything. */
export interface Scene {
  readonly replicas: readonly Partial<ReplicaState>[];
  readonly request?: Partial<RouteRequest>;
  readonly context?: Partial<Omit<RouteContext, "cachedTokens">>;
  readonly cached?: readonly number[];
}

export function choiceOf({ replicas, request = {}, context = {}, cached = [] }: Scene): Choice {
  const cachedTokens = new Uint32Array(replicas.length);
  cachedTokens.set(cached);
  return {
    replicas: replicas.map((state, index) => replica({ id: `replica-${index}`, ...state })),
    request: {
      promptTokens: 2_048,
      prefix: Uint32Array.from({ length: 8 }, (_, block) => block + 1),
      sessionKey: null,
      adapter: null,
      ...request,
    },
    context: { sequence: 0, random: [0, 0], reuse: 0, meanWork: 1_000, ...context, cachedTokens },
  };
}
