import type { Policy } from "../policy.ts";
import { load } from "./terms.ts";

/** More than any replica has requests. */
const notDrawn = 1e9;

/** Draws two ready replicas and takes the one with fewer requests: what many gateways can do without a common view. */
export const powerOfTwo: Policy = {
  name: "power_of_two",
  terms(_request, replicas, { random }) {
    const ready = replicas.flatMap((replica, index) => (replica.ready ? [index] : []));
    const first = Math.floor(random[0] * ready.length);
    const other = (first + 1 + Math.floor(random[1] * (ready.length - 1))) % Math.max(1, ready.length);
    const drawn = new Set([ready[first], ready[other]]);
    return [
      { name: "not_drawn", cost: (_, index) => (drawn.has(index) ? 0 : notDrawn) },
      { name: "requests", cost: load },
    ];
  },
};
