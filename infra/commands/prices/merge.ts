import type { z } from "zod";
import type { pricesFile } from "../../catalog/prices.ts";
import type { FetchedRegion } from "./fetched.ts";

/** What `prices.json` holds. */
export type PricesFile = z.infer<typeof pricesFile>;

/** A price that is another now. Null: none. */
export interface PriceChange {
  readonly size: string;
  readonly region: string;
  readonly capacity: "on-demand" | "spot";
  readonly before: number | null;
  readonly after: number | null;
}

/**
 * Puts what clouds told into the file: a price of today replaces the one of another day, and a size that a cloud lists no
 * more in a region has no price there. What nobody asked about stays as it is. Sorted, so that a diff shows changes alone.
 */
export function merged(
  file: PricesFile,
  regions: readonly FetchedRegion[],
  today: string,
): { readonly file: PricesFile; readonly changes: readonly PriceChange[] } {
  const rows = new Map<string, Record<string, number>>();
  for (const { size, capacity, source, usdPerHour } of file.prices) {
    rows.set(keyOf(size, capacity, source), withoutAsked(usdPerHour, size, regions));
  }
  const sources = { ...file.sources };
  for (const { prices, sources: own, region } of regions) {
    for (const { size, capacity, usdPerHour } of prices) {
      const { key, what } = own[capacity];
      sources[key] = { what, asOf: today };
      const row = keyOf(size, capacity, key);
      rows.set(row, { ...rows.get(row), [region]: usdPerHour });
    }
  }
  const prices = [...rows]
    .filter(([, usdPerHour]) => Object.keys(usdPerHour).length > 0)
    .map(([key, usdPerHour]): PricesFile["prices"][number] => {
      // The key is what keyOf made of a row of this type.
      const [size, capacity, source] = JSON.parse(key) as [string, "on-demand" | "spot", string];
      return { size, capacity, source, usdPerHour: sorted(usdPerHour) };
    })
    .toSorted((a, b) => rank(a).localeCompare(rank(b)));
  const used = new Set(prices.map(({ source }) => source));
  const result = {
    currency: file.currency,
    sources: sorted(Object.fromEntries(Object.entries(sources).filter(([key]) => used.has(key)))),
    prices,
  };
  return { file: result, changes: changesOf(file, result, regions) };
}

function keyOf(size: string, capacity: string, source: string): string {
  return JSON.stringify([size, capacity, source]);
}

/** A row's prices but for those that were asked about now. */
function withoutAsked(
  usdPerHour: Readonly<Record<string, number>>,
  size: string,
  regions: readonly FetchedRegion[],
): Record<string, number> {
  const asked = new Set(regions.filter(({ sizes }) => sizes.includes(size)).map(({ region }) => region));
  return Object.fromEntries(Object.entries(usdPerHour).filter(([region]) => !asked.has(region)));
}

/** The newest source of a price first: the first row with a region counts. */
function rank({ size, capacity, source }: PricesFile["prices"][number]): string {
  return `${size} ${capacity} ${source}`;
}

function sorted<Value>(record: Readonly<Record<string, Value>>): Record<string, Value> {
  return Object.fromEntries(Object.entries(record).toSorted(([a], [b]) => (a < b ? -1 : 1)));
}

function changesOf(before: PricesFile, after: PricesFile, regions: readonly FetchedRegion[]): PriceChange[] {
  const asked = regions.flatMap(({ region, sizes }) => sizes.map((size) => ({ region, size })));
  return asked
    .flatMap(({ region, size }) =>
      (["on-demand", "spot"] as const).map((capacity) => {
        const at = { size, region, capacity };
        return { ...at, before: priceIn(before, at), after: priceIn(after, at) };
      }),
    )
    .filter((change) => change.before !== change.after);
}

function priceIn(file: PricesFile, { size, region, capacity }: Omit<PriceChange, "before" | "after">): number | null {
  const row = file.prices.find(
    (each) => each.size === size && each.capacity === capacity && each.usdPerHour[region] !== undefined,
  );
  return row?.usdPerHour[region] ?? null;
}

/** Changes for a reviewer: `Standard_X in eastus2, spot: 1.2 -> 1.4 USD an hour (+16.7 %)`. */
export function changeLines(changes: readonly PriceChange[]): string[] {
  return changes.map(({ size, region, capacity, before, after }) => {
    const where = `${size} in ${region}, ${capacity}: ${before ?? "unknown"} ->`;
    if (after === null) return `${where} not sold`;
    const percent = before === null ? null : ((after - before) / before) * 100;
    return `${where} ${after} USD an hour${percent === null ? "" : ` (${percent > 0 ? "+" : ""}${percent.toFixed(1)} %)`}`;
  });
}
