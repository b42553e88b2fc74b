import type { Policy } from "../policy.ts";
import { load } from "./terms.ts";

/** The fewest requests. */
export const leastLoad: Policy = {
  name: "least_load",
  terms: () => [{ name: "requests", cost: load }],
};
