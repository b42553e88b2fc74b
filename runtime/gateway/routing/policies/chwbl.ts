import type { Policy } from "../policy.ts";
import { hashName } from "../prefix-hash.ts";
import { distance } from "./consistent.ts";
import { load } from "./terms.ts";

/** A replica may have that much more than the mean (KubeAI's default of 125 %). */
const loadFactor = 1.25;
/** The key is the prompt up to there: deeper than a system prompt that everyone shares (1,024 tokens). */
const keyBlocks = 4;

/** Requests that a replica may have, the one to place included. One of them always may take it. */
export function loadBound(requests: number, replicas: number): number {
  return Math.ceil(((requests + 1) / Math.max(1, replicas)) * loadFactor);
}

/** Consistent hashing with bounded loads: the key is a prefix of the prompt, and whoever is over the bound is passed by. */
export function chwbl(name: string, blocks: number): Policy {
  return {
    name,
    terms(request, replicas, _context) {
      const ready = replicas.filter((replica) => replica.ready);
      const bound = loadBound(
        ready.reduce((sum, replica) => sum + load(replica), 0),
        ready.length,
      );
      const key = (request.prefix[Math.min(blocks, request.prefix.length) - 1] ?? 0) ^ hashName(request.adapter ?? "");
      return [
        { name: "distance", cost: (replica) => distance(key, replica) },
        { name: "over_bound", cost: (replica) => (load(replica) + 1 <= bound ? 0 : 1) },
      ];
    },
  };
}

/** CHWBL on the first 1,024 tokens. */
export const consistentHashing = chwbl("chwbl", keyBlocks);
