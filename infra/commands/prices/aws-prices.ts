import { z } from "zod";
import { PenstockError } from "../../../runtime/contracts/errors.ts";
import type { FetchedPrice, FetchedRegion } from "./fetched.ts";
import { ask } from "./http.ts";
import { signed, type AwsLogin } from "./sign.ts";

/** AWS's APIs, and who asks. */
export interface AwsAccess {
  readonly login: AwsLogin;
  /** The Price List Query API, which is in few regions and knows all. */
  readonly pricingUrl: string;
  readonly ec2Url: (region: string) => string;
  readonly now: () => Date;
}

/** Where AWS's APIs are. */
export const awsUrls = {
  pricingUrl: "https://api.pricing.us-east-1.amazonaws.com/",
  ec2Url: (region: string): string => `https://ec2.${region}.amazonaws.com/`,
} as const;

const maxPages = 50;

/** Asks for the prices of sizes in a region: on demand from the price list, spot from its history. */
export async function awsPrices(
  { region, sizes, today }: { readonly region: string; readonly sizes: readonly string[]; readonly today: string },
  access: AwsAccess,
): Promise<FetchedRegion> {
  const prices: FetchedPrice[] = [];
  for (const size of sizes) {
    const usdPerHour = await onDemandPrice(size, region, access);
    if (usdPerHour !== null) prices.push({ size, region, capacity: "on-demand", usdPerHour });
  }
  if (prices.length === 0) {
    throw new PenstockError("invalid_config", `AWS lists no GPU size in ${region}; check the region's name.`);
  }
  prices.push(...(await spotPrices(region, sizes, access)));
  return {
    cloud: "aws",
    region,
    sizes,
    prices,
    sources: {
      "on-demand": { key: `aws-price-list-${today}`, what: "AWS Price List API, Linux on demand, shared tenancy" },
      spot: { key: `aws-spot-history-${today}`, what: "EC2 spot price history, Linux, the dearest zone" },
    },
  };
}

const products = z.object({ PriceList: z.array(z.string()), NextToken: z.string().nullish() });
const product = z.object({
  terms: z.object({
    OnDemand: z
      .record(
        z.string(),
        z.object({
          priceDimensions: z.record(
            z.string(),
            z.object({ unit: z.string(), pricePerUnit: z.object({ USD: z.string() }) }),
          ),
        }),
      )
      .optional(),
  }),
});

/** USD an hour; null: not sold there. */
async function onDemandPrice(size: string, region: string, access: AwsAccess): Promise<number | null> {
  const fields = {
    regionCode: region,
    instanceType: size,
    operatingSystem: "Linux",
    preInstalledSw: "NA",
    capacitystatus: "Used",
    marketoption: "OnDemand",
    tenancy: "Shared",
  };
  const body = JSON.stringify({
    ServiceCode: "AmazonEC2",
    FormatVersion: "aws_v1",
    Filters: Object.entries(fields).map(([Field, Value]) => ({ Type: "TERM_MATCH", Field, Value })),
    MaxResults: 100,
  });
  const headers = { "content-type": "application/x-amz-json-1.1", "x-amz-target": "AWSPriceListService.GetProducts" };
  const scope = { region: "us-east-1", service: "pricing", now: access.now() };
  const request = { url: access.pricingUrl, method: "POST", headers, body } as const;
  const text = await ask({ ...request, headers: sent(signed(request, access.login, scope)) });
  const prices = readable(() => products.parse(JSON.parse(text)).PriceList.flatMap(hourlyPrices));
  return prices.length === 0 ? null : Math.max(...prices);
}

/** Each product is JSON in a string. A price of 0 is of a reservation that is used, not of a node. */
function hourlyPrices(json: string): number[] {
  const terms = Object.values(product.parse(JSON.parse(json)).terms.OnDemand ?? {});
  return terms
    .flatMap(({ priceDimensions }) => Object.values(priceDimensions))
    .filter(({ unit }) => unit === "Hrs")
    .map(({ pricePerUnit }) => Number(pricePerUnit.USD))
    .filter((usd) => Number.isFinite(usd) && usd > 0);
}

/** What spot nodes cost now: of each size the dearest zone, so that no report is too low. */
async function spotPrices(region: string, sizes: readonly string[], access: AwsAccess): Promise<FetchedPrice[]> {
  const dearest = new Map<string, number>();
  let token = "";
  for (let pages = 0; pages === 0 || token !== ""; pages += 1) {
    if (pages === maxPages) throw unreadable(`more than ${maxPages} pages of spot prices`);
    const xml = await spotPage({ region, sizes, token }, access);
    for (const { size, usd } of spotItems(xml)) {
      if (sizes.includes(size)) dearest.set(size, Math.max(usd, dearest.get(size) ?? 0));
    }
    token = textOf(xml.replaceAll(/<item>[\s\S]*?<\/item>/g, ""), "nextToken") ?? "";
  }
  return [...dearest].map(([size, usdPerHour]) => ({ size, region, capacity: "spot", usdPerHour }));
}

async function spotPage(
  { region, sizes, token }: { readonly region: string; readonly sizes: readonly string[]; readonly token: string },
  access: AwsAccess,
): Promise<string> {
  const now = access.now();
  const body = new URLSearchParams({
    Action: "DescribeSpotPriceHistory",
    Version: "2016-11-15",
    // From now to now: the price that each zone has.
    StartTime: now.toISOString(),
    EndTime: now.toISOString(),
    "ProductDescription.1": "Linux/UNIX",
    ...Object.fromEntries(sizes.map((size, at) => [`InstanceType.${at + 1}`, size])),
    ...(token === "" ? {} : { NextToken: token }),
  }).toString();
  const headers = { "content-type": "application/x-www-form-urlencoded; charset=utf-8" };
  const request = { url: access.ec2Url(region), method: "POST", headers, body } as const;
  const xml = await ask({ ...request, headers: sent(signed(request, access.login, { region, service: "ec2", now })) });
  if (!xml.includes("<DescribeSpotPriceHistoryResponse")) throw unreadable("no spot price history");
  return xml;
}

/** The history is flat XML without attributes or escapes in what is read here. */
function spotItems(xml: string): { size: string; usd: number }[] {
  return [...xml.matchAll(/<item>([\s\S]*?)<\/item>/g)].flatMap(([, item = ""]) => {
    const size = textOf(item, "instanceType");
    const usd = Number(textOf(item, "spotPrice"));
    return size !== null && Number.isFinite(usd) && usd > 0 ? [{ size, usd }] : [];
  });
}

function textOf(xml: string, element: string): string | null {
  return new RegExp(`<${element}>([^<]*)</${element}>`).exec(xml)?.[1] ?? null;
}

/** `host` is the connection's own. */
function sent({ host: _host, ...headers }: Record<string, string>): Record<string, string> {
  return headers;
}

function readable<Value>(read: () => Value): Value {
  try {
    return read();
  } catch (cause) {
    throw unreadable("an answer that is no list of products", cause);
  }
}

function unreadable(problem: string, cause?: unknown): PenstockError {
  const text = `AWS's price list gave ${problem}. No price was changed; see whether its API changed.`;
  return new PenstockError("upstream_failed", text, cause === undefined ? {} : { cause });
}
