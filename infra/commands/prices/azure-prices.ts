import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import { azureRetailSource } from "../../catalog/prices.ts";
import type { FetchedPrice, FetchedRegion } from "./fetched.ts";
import { ask } from "./http.ts";

/** Azure's list of prices: public, without a login. */
export const azureRetailUrl = "https://prices.azure.com/api/retail/prices";

/** More pages than the sizes of one region have. */
const maxPages = 100;

const page = z.object({
  Items: z.array(
    z.object({
      currencyCode: z.string(),
      retailPrice: z.number(),
      armRegionName: z.string(),
      armSkuName: z.string(),
      productName: z.string(),
      skuName: z.string(),
      meterName: z.string(),
      unitOfMeasure: z.string(),
      type: z.string(),
      effectiveStartDate: z.string(),
    }),
  ),
  NextPageLink: z.string().nullable(),
});
type Item = z.infer<typeof page>["Items"][number];

/** Asks for the Linux prices of sizes in a region, on demand and spot. Throws when the list has none at all there. */
export async function azurePrices(
  { region, sizes, today }: { readonly region: string; readonly sizes: readonly string[]; readonly today: string },
  url = azureRetailUrl,
): Promise<FetchedRegion> {
  const items = await allItems(region, sizes, url);
  const newest = new Map<string, Item>();
  for (const item of items.filter((each) => isPlainLinux(each, region, sizes))) {
    const key = JSON.stringify([item.armSkuName, capacityOf(item)]);
    const known = newest.get(key);
    if (item.effectiveStartDate.slice(0, 10) > today) continue;
    if (known === undefined || known.effectiveStartDate < item.effectiveStartDate) newest.set(key, item);
  }
  if (newest.size === 0) {
    throw new PenstockError("invalid_config", `Azure lists no GPU size in ${region}; check the region's name.`);
  }
  const prices = [...newest.values()].map((item): FetchedPrice => ({
    size: item.armSkuName,
    region,
    capacity: capacityOf(item),
    usdPerHour: item.retailPrice,
  }));
  const source = { key: `${azureRetailSource}${today}`, what: "Azure Retail Prices API, Linux pay-as-you-go and spot" };
  return { cloud: "azure", region, sizes, prices, sources: { "on-demand": source, spot: source } };
}

async function allItems(region: string, sizes: readonly string[], url: string): Promise<Item[]> {
  const skus = sizes.map((size) => `armSkuName eq '${size}'`).join(" or ");
  const filter = `serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '${region}' and (${skus})`;
  const first = new URL(url);
  first.searchParams.set("api-version", "2023-01-01-preview");
  first.searchParams.set("$filter", filter);
  const items: Item[] = [];
  let next: string | null = first.href;
  for (let pages = 0; next !== null; pages += 1) {
    if (pages === maxPages) throw unreadable(`more than ${maxPages} pages`);
    const found: z.infer<typeof page> = parsePage(await ask({ url: next }));
    items.push(...found.Items);
    next = found.NextPageLink === null || found.NextPageLink === "" ? null : sameHost(found.NextPageLink, first);
  }
  return items;
}

function parsePage(text: string): z.infer<typeof page> {
  try {
    return page.parse(JSON.parse(text));
  } catch (cause) {
    throw unreadable("an answer without a list of prices", cause);
  }
}

/** The next page is of the list that was asked, wherever the answer points. */
function sameHost(link: string, first: URL): string {
  const next = URL.canParse(link) ? new URL(link) : null;
  if (next === null || next.hostname !== first.hostname) throw unreadable("a next page of another host");
  next.protocol = first.protocol;
  next.port = first.port;
  return next.href;
}

function isPlainLinux(item: Item, region: string, sizes: readonly string[]): boolean {
  return (
    item.type === "Consumption" &&
    item.currencyCode === "USD" &&
    item.unitOfMeasure === "1 Hour" &&
    item.retailPrice > 0 &&
    item.armRegionName === region &&
    sizes.includes(item.armSkuName) &&
    !item.productName.endsWith(" Windows") &&
    !/(Low Priority|Dedicated)/.test(`${item.skuName} ${item.meterName}`)
  );
}

function capacityOf({ skuName }: Item): FetchedPrice["capacity"] {
  return skuName.endsWith(" Spot") ? "spot" : "on-demand";
}

function unreadable(problem: string, cause?: unknown): PenstockError {
  const text = `Azure's price list gave ${problem}. No price was changed; see whether its API changed.`;
  return new PenstockError("upstream_failed", text, cause === undefined ? {} : { cause });
}
