import type { Policy } from "../policy.ts";

/** Each replica in its turn, whatever it is doing. */
export const roundRobin: Policy = {
  name: "round_robin",
  terms(_request, replicas, { sequence }) {
    const turn = sequence % Math.max(1, replicas.length);
    return [{ name: "places_after_turn", cost: (_, index) => (index - turn + replicas.length) % replicas.length }];
  },
};
