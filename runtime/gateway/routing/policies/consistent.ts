import { mix32 } from "../prefix-hash.ts";
import type { ReplicaState } from "../policy.ts";

/**
 * How far a replica is from the one that a key belongs to, in [0, 1): rendezvous hashing. As with a ring, a replica that
 * comes or goes moves only its own keys; unlike a ring, what does not fit spreads over all others.
 */
export function distance(key: number, replica: ReplicaState): number {
  return (mix32(key ^ Math.imul(replica.hash, 0x9e3779b1)) >>> 0) / 2 ** 32;
}
