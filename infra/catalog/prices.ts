import { z } from "zod";
import type { Cloud } from "../stack/schema.ts";
import content from "./prices.json" with { type: "json" };
import { checked, day } from "./read.ts";

/** What `prices.json` must be. */
export const pricesFile = z
  .strictObject({
    currency: z.literal("USD"),
    sources: z.record(z.string(), z.strictObject({ what: z.string(), asOf: day })),
    prices: z.array(
      z.strictObject({
        size: z.string().min(1),
        capacity: z.enum(["on-demand", "spot"]),
        source: z.string().min(1),
        usdPerHour: z.record(z.string(), z.number().positive()),
      }),
    ),
  })
  .superRefine(({ sources, prices }, context) => {
    for (const [at, { source }] of prices.entries()) {
      if (sources[source] === undefined) {
        context.addIssue({ code: "custom", path: ["prices", at, "source"], message: `no source ${source}` });
      }
    }
  });

const { prices, sources } = checked("prices.json", pricesFile, content);

/** A list price in USD; `usdPerHour` null: unknown, which is never zero. */
export interface ListPrice {
  readonly usdPerHour: number | null;
  readonly source: string;
  readonly asOf: string;
}

/** Begins the names of sources that `npm run prices -- refresh` writes for Azure; the day follows. */
export const azureRetailSource = "azure-retail-";

/** Regions whose price tables are complete: a size without a price there is not sold there. AWS: us-east-1 alone. */
const completeRegions: Readonly<Record<Cloud, ReadonlySet<string>>> = {
  azure: regionsOf((source) => source === "K-AZ-PRICE" || source.startsWith(azureRetailSource)),
  aws: new Set(["us-east-1"]),
};

/** What is asked of the price list. */
export interface PriceQuestion {
  readonly size: string;
  readonly region: string;
  readonly capacity: "on-demand" | "spot";
}

/** What a node costs by the list. Spot prices move by the hour: what is known of them is old. */
export function priceOf({ size, region, capacity }: PriceQuestion): ListPrice {
  const row = prices.find(
    (candidate) =>
      candidate.size === size && candidate.capacity === capacity && candidate.usdPerHour[region] !== undefined,
  );
  const source = row === undefined ? undefined : sources[row.source];
  if (row === undefined || source === undefined) {
    const asOf = Object.values(sources).reduce((latest, { asOf: at }) => (at > latest ? at : latest), "");
    return { usdPerHour: null, source: `no ${capacity} price known of ${size} in ${region}`, asOf };
  }
  return { usdPerHour: row.usdPerHour[region] ?? null, source: source.what, asOf: source.asOf };
}

/** Whether a size is sold in a region: `unknown` where the price table of the region is not complete. */
export function isSold(cloud: Cloud, size: string, region: string): "yes" | "no" | "unknown" {
  if (regionsSelling(size).includes(region)) return "yes";
  return completeRegions[cloud].has(region) ? "no" : "unknown";
}

/** Regions with a price of the size, sorted. */
export function regionsSelling(size: string): string[] {
  const rows = prices.filter((row) => row.size === size && row.capacity === "on-demand");
  return [...new Set(rows.flatMap(({ usdPerHour }) => Object.keys(usdPerHour)))].toSorted();
}

/** Azure's regions, all of which the price table lists; null for AWS, where it lists few. */
export function knownRegions(cloud: Cloud): readonly string[] | null {
  return cloud === "azure" ? [...completeRegions.azure].toSorted() : null;
}

function regionsOf(isComplete: (source: string) => boolean): Set<string> {
  return new Set(
    prices.filter(({ source }) => isComplete(source)).flatMap(({ usdPerHour }) => Object.keys(usdPerHour)),
  );
}
