import { Histogram } from "./histogram.ts";

/** What a request must reach to count: seconds to its first token, seconds for each one after it; and how many must. */
export interface Slo {
  readonly ttftSeconds: number;
  readonly tpotSeconds: number;
  /** 0 to 1. */
  readonly share: number;
}

/** What became of a fleet's requests. */
export class Tally {
  readonly ttft = new Histogram();
  readonly tpot = new Histogram();
  requests = 0;
  served = 0;
  /** Served within the SLO. */
  good = 0;
  outputTokens = 0;
  /** Longer than the fleet's context: refused, in any number of replicas. */
  tooLong = 0;
  /** Waited for a replica for longer than the gateway holds requests, or found its queue full. */
  refused = 0;
  /** Cut off by the end of a drain. */
  cut = 0;
  coldStarts = 0;
  newNodeStarts = 0;
  modelLoads = 0;
  modelWakes = 0;
  /** Times that a replica was wanted and the pool was full. */
  blocked = 0;
  replicaSeconds = 0;
  peakReplicas = 0;

  /** Of the requests that the fleet can serve at all: 0 to 1. Without any it is 1. */
  get goodShare(): number {
    const possible = this.requests - this.tooLong;
    return possible <= 0 ? 1 : this.good / possible;
  }
}
