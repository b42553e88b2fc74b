import type { Cloud } from "../../stack/schema.ts";

/** A price that a cloud told: USD an hour of a Linux node. */
export interface FetchedPrice {
  readonly size: string;
  readonly region: string;
  readonly capacity: "on-demand" | "spot";
  readonly usdPerHour: number;
}

/** Everything that a cloud told of some sizes in a region; what is not in it is not sold there. */
export interface FetchedRegion {
  readonly cloud: Cloud;
  readonly region: string;
  readonly sizes: readonly string[];
  /** Names the source in `prices.json`, and what it is for people. By capacity: they may have sources of their own. */
  readonly sources: Readonly<Record<FetchedPrice["capacity"], { readonly key: string; readonly what: string }>>;
  readonly prices: readonly FetchedPrice[];
}
