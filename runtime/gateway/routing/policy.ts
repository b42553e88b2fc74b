/** What a policy knows of a request. Tokens are estimated from bytes; nothing is tokenised. */
export interface RouteRequest {
  readonly promptTokens: number;
  /** Chained hashes of the prompt's blocks, from `prefixHashes`. */
  readonly prefix: Uint32Array;
  /** What the client calls its conversation; null when it does not say. */
  readonly sessionKey: string | null;
  readonly adapter: string | null;
}

/** What is known of a replica: its engine's own words, as old as `ageMs`, and this gateway's account. */
export interface ReplicaState {
  readonly id: string;
  /** `hashName(id)`: where the replica stands in consistent hashing. */
  readonly hash: number;
  /** Takes requests. */
  readonly ready: boolean;
  /** The engine's queue at the last heartbeat. Null: it does not say. */
  readonly measuredWaiting: number | null;
  readonly measuredRunning: number | null;
  /** Share of the KV cache that running requests hold, 0 to 1. Null: it does not say. */
  readonly kvUsage: number | null;
  /** Age of the measured figures. */
  readonly ageMs: number;
  /** Adapters that are loaded. */
  readonly adapters: ReadonlySet<string>;
  /** ms that an adapter takes which is not loaded. */
  readonly adapterLoadMs: number;

  /** Requests of this gateway that have begun and not ended. */
  readonly inFlight: number;
  /** Those of them whose first byte has not been seen. */
  readonly prefilling: number;
  /** `prefillWork` routed and not yet done. */
  readonly pendingTokens: number;
  /** Prompt tokens of this gateway's requests, each with all of its own: what their answers look back on. */
  readonly contextTokens: number;
  /** Requests in the engine's queue that are not of this gateway. */
  readonly foreignWaiting: number;
  /** Speed of prefill as measured through this gateway, in tokens of `prefillWork`. */
  readonly prefillTokensPerMs: number;
  /** Time to first token of a request without work. */
  readonly baseMs: number;
  /** Time from the first byte of an answer to its end, as it is in this fleet. */
  readonly answerMs: number;
  /** Tokens that fit in the KV cache. */
  readonly kvTokens: number;
  /** Filled part of the replica's cache by the prefix index, 0 to 1. */
  readonly cacheFill: number;
}

/** What else a choice depends on; with it every policy is a pure function. */
export interface RouteContext {
  /** Choices made before: what rotates. */
  readonly sequence: number;
  /** Two numbers in [0, 1). */
  readonly random: readonly [number, number];
  /** Tokens of this prompt that each replica holds, or will hold once its queue is done; same order as the replicas. */
  readonly cachedTokens: Uint32Array;
  /** Share of recent prompt tokens that some replica held, 0 to 1. */
  readonly reuse: number;
  /** Mean `prefillWork` of a request, to weigh requests of which only the number is known. */
  readonly meanWork: number;
}

/** One summand of a replica's cost. The replica with the lowest sum is chosen. */
export interface Term {
  readonly name: string;
  /** Finite. */
  cost(replica: ReplicaState, index: number): number;
}

/** A way to choose: what a replica costs, for this request. No I/O, no clock, no state. */
export interface Policy {
  readonly name: string;
  terms(request: RouteRequest, replicas: readonly ReplicaState[], context: RouteContext): readonly Term[];
}

/** Why a replica was chosen or not. */
export interface ReplicaScore {
  readonly id: string;
  readonly ready: boolean;
  /** The sum of `parts`. Lowest wins. */
  readonly score: number;
  readonly parts: Readonly<Record<string, number>>;
}

/** A choice. */
export interface RouteDecision {
  /** Of the replicas. */
  readonly index: number;
  /** One entry a replica, in their order; only when asked for. */
  readonly explanation?: readonly ReplicaScore[];
}

/** One choice to make. */
export interface Choice {
  readonly request: RouteRequest;
  readonly replicas: readonly ReplicaState[];
  readonly context: RouteContext;
  readonly explain?: boolean;
}

/** The ready replica that costs least; equals take turns. Null when none is ready. */
export function choose(policy: Policy, { request, replicas, context, explain = false }: Choice): RouteDecision | null {
  const terms = policy.terms(request, replicas, context);
  const count = replicas.length;
  let best = -1;
  let lowest = Infinity;
  for (let step = 0; step < count; step += 1) {
    const index = (context.sequence + step) % count;
    const replica = replicas[index];
    if (replica === undefined || !replica.ready) continue;
    let cost = 0;
    for (const term of terms) cost += term.cost(replica, index);
    if (best !== -1 && !(cost < lowest)) continue;
    best = index;
    lowest = cost;
  }
  if (best === -1) return null;
  return explain ? { index: best, explanation: explainAll(terms, replicas) } : { index: best };
}

function explainAll(terms: readonly Term[], replicas: readonly ReplicaState[]): ReplicaScore[] {
  return replicas.map((replica, index) => {
    const parts = Object.fromEntries(terms.map((term) => [term.name, term.cost(replica, index)]));
    const score = Object.values(parts).reduce((sum, part) => sum + part, 0);
    return { id: replica.id, ready: replica.ready, score, parts };
  });
}
