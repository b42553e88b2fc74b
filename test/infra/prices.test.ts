import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { describe, expect, test } from "vitest";
import { auxPrices } from "../../infra/catalog/aux-prices.ts";
import { pricesFile } from "../../infra/catalog/prices.ts";
import { awsPrices, type AwsAccess } from "../../infra/commands/prices/aws-prices.ts";
import { azurePrices } from "../../infra/commands/prices/azure-prices.ts";
import type { FetchedRegion } from "../../infra/commands/prices/fetched.ts";
import { ask } from "../../infra/commands/prices/http.ts";
import { changeLines, merged, type PricesFile } from "../../infra/commands/prices/merge.ts";
import { signed } from "../../infra/commands/prices/sign.ts";
import { repository } from "../support/repository.ts";
import { awsProduct, azureItem, azurePage, priceList, spotHistory, type PriceList } from "./prices-support.ts";

const today = "2026-11-21";
const a100 = "Standard_NC24ads_A100_v4";
const azureQuestion = { region: "eastus2", sizes: [a100, "Standard_NC40ads_H100_v5"], today } as const;

describe("Azure's Retail Prices API", () => {
  test("is asked for the sizes of a region, page by page, and gives prices on demand and spot", async () => {
    await using list: PriceList = await priceList((_, count) =>
      count === 1
        ? azurePage([azureItem()], "https://127.0.0.1:443/?$skip=1000")
        : azurePage([
            azureItem({ skuName: "NC24ads A100 v4 Spot", meterName: "NC24ads A100 v4 Spot", retailPrice: 0.9 }),
          ]),
    );
    const fetched = await azurePrices(azureQuestion, list.url);
    expect(fetched.prices).toEqual([
      { size: a100, region: "eastus2", capacity: "on-demand", usdPerHour: 3.673 },
      { size: a100, region: "eastus2", capacity: "spot", usdPerHour: 0.9 },
    ]);
    expect(list.asked).toHaveLength(2);
    const filter = list.asked[0]?.url.searchParams.get("$filter");
    expect(filter).toContain("armRegionName eq 'eastus2'");
    expect(filter).toContain(`(armSkuName eq '${a100}' or armSkuName eq 'Standard_NC40ads_H100_v5')`);
    expect(list.asked[0]?.url.searchParams.get("api-version")).toBe("2023-01-01-preview");
  });

  test("what is no plain Linux node by the hour is left out, and the newest price counts", async () => {
    const dear = { retailPrice: 999 };
    await using list = await priceList(() =>
      azurePage([
        azureItem({ ...dear, productName: "Virtual Machines NCads A100 v4 Series Windows" }),
        azureItem({ ...dear, skuName: "NC24ads A100 v4 Low Priority", meterName: "NC24ads A100 v4 Low Priority" }),
        azureItem({ ...dear, skuName: "NC24ads A100 v4 Dedicated Host" }),
        azureItem({ ...dear, type: "Reservation" }),
        azureItem({ ...dear, currencyCode: "EUR" }),
        azureItem({ ...dear, unitOfMeasure: "1 Month" }),
        azureItem({ ...dear, armRegionName: "westus" }),
        azureItem({ ...dear, armSkuName: "Standard_D4s_v5" }),
        azureItem({ retailPrice: 0 }),
        azureItem({ retailPrice: 3.5, effectiveStartDate: "2025-01-01T00:00:00Z" }),
        azureItem({ retailPrice: 3.7, effectiveStartDate: "2026-06-01T00:00:00Z" }),
        azureItem({ ...dear, effectiveStartDate: "2027-01-01T00:00:00Z" }),
      ]),
    );
    const { prices } = await azurePrices(azureQuestion, list.url);
    expect(prices).toEqual([{ size: a100, region: "eastus2", capacity: "on-demand", usdPerHour: 3.7 }]);
  });

  test("a region without a price, another host's page, and nonsense are errors", async () => {
    await using none = await priceList(() => azurePage([]));
    await expect(azurePrices(azureQuestion, none.url)).rejects.toThrow(
      "no GPU size in eastus2; check the region's name",
    );
    await using evil = await priceList(() => azurePage([azureItem()], "https://evil.example.com/prices"));
    await expect(azurePrices(azureQuestion, evil.url)).rejects.toThrow("a next page of another host");
    await using endless: PriceList = await priceList(() => azurePage([azureItem()], "https://127.0.0.1/next"));
    await expect(azurePrices(azureQuestion, endless.url)).rejects.toThrow("more than 100 pages");
    await using broken = await priceList(() => "<html>");
    await expect(azurePrices(azureQuestion, broken.url)).rejects.toThrow("an answer without a list of prices");
  });
});

describe("asking", () => {
  test("tries again when a list is busy, and gives up on what stays wrong", async () => {
    await using busy = await priceList((_, count) => (count < 3 ? 429 : "prices"));
    expect(await ask({ url: busy.url }, [1, 1, 1])).toBe("prices");
    await using down = await priceList(() => 503);
    await expect(ask({ url: down.url }, [1, 1])).rejects.toThrow(/127\.0\.0\.1:\d+ answered 503: try later/);
    expect(down.asked).toHaveLength(3);
    await using refused = await priceList(() => 403);
    await expect(ask({ url: refused.url }, [1, 1])).rejects.toThrow("answered 403");
    expect(refused.asked).toHaveLength(1);
  });

  test("a place that is not there is named, and nothing of what was sent", async () => {
    const failure = ask({ url: "http://127.0.0.1:9/", headers: { authorization: "secret-signature" } }, []);
    await expect(failure).rejects.toThrow("127.0.0.1:9 cannot be reached");
    await expect(failure).rejects.not.toThrow("secret-signature");
  });
});

describe("AWS", () => {
  const now = new Date("2026-11-21T10:00:00.000Z");
  const login = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "secret-key", sessionToken: "session" };

  function accessTo(list: PriceList): AwsAccess {
    return { login, pricingUrl: list.url, ec2Url: () => list.url, now: () => now };
  }

  test("the price list tells prices on demand, the history spot prices of the dearest zone", async () => {
    await using list = await priceList(({ body, headers }) => {
      if (headers["x-amz-target"] !== undefined) {
        const products = body.includes('"g6e.2xlarge"') ? [awsProduct("2.2420800000"), awsProduct("0.0000000000")] : [];
        return JSON.stringify({ FormatVersion: "aws_v1", PriceList: products });
      }
      return body.includes("NextToken=more")
        ? spotHistory([{ size: "g6e.2xlarge", usd: "0.9100", zone: "us-east-1b" }])
        : spotHistory([{ size: "g6e.2xlarge", usd: "0.8700", zone: "us-east-1a" }], "more");
    });
    const question = { region: "us-east-1", sizes: ["g6e.2xlarge", "p6-b200.48xlarge"], today };
    const fetched = await awsPrices(question, accessTo(list));
    expect(fetched.prices).toEqual([
      { size: "g6e.2xlarge", region: "us-east-1", capacity: "on-demand", usdPerHour: 2.24208 },
      { size: "g6e.2xlarge", region: "us-east-1", capacity: "spot", usdPerHour: 0.91 },
    ]);
    const [first] = list.asked;
    expect(first?.headers).toMatchObject({
      "x-amz-target": "AWSPriceListService.GetProducts",
      "x-amz-security-token": "session",
      "x-amz-date": "20261121T100000Z",
    });
    expect(first?.headers.authorization).toMatch(
      /^AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE\/20261121\/us-east-1\/pricing\/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target, Signature=[0-9a-f]{64}$/,
    );
    expect(JSON.parse(first?.body ?? "")).toMatchObject({
      ServiceCode: "AmazonEC2",
      Filters: expect.arrayContaining([{ Type: "TERM_MATCH", Field: "tenancy", Value: "Shared" }]),
    });
    const spot = new URLSearchParams(list.asked.at(-1)?.body);
    expect(Object.fromEntries(spot)).toMatchObject({
      Action: "DescribeSpotPriceHistory",
      "InstanceType.1": "g6e.2xlarge",
      "ProductDescription.1": "Linux/UNIX",
      NextToken: "more",
    });
  });

  test("a region without a price, a refusal and nonsense are errors without the login in them", async () => {
    const question = { region: "us-nowhere-1", sizes: ["g6e.2xlarge"], today };
    await using none = await priceList(() => JSON.stringify({ PriceList: [] }));
    await expect(awsPrices(question, accessTo(none))).rejects.toThrow("no GPU size in us-nowhere-1");
    await using refuses = await priceList(() => 400);
    await expect(awsPrices(question, accessTo(refuses))).rejects.toThrow(/answered 400/);
    await expect(awsPrices(question, accessTo(refuses))).rejects.not.toThrow("secret-key");
    await using broken = await priceList(() => JSON.stringify({ PriceList: ["{"] }));
    await expect(awsPrices(question, accessTo(broken))).rejects.toThrow("no list of products");
    await using half = await priceList(({ headers }) =>
      headers["x-amz-target"] === undefined ? "<Error/>" : JSON.stringify({ PriceList: [awsProduct("1")] }),
    );
    await expect(awsPrices(question, accessTo(half))).rejects.toThrow("no spot price history");
  });

  test("signs as AWS's own example of Signature Version 4 does (get-vanilla)", () => {
    const request = { url: "https://example.amazonaws.com/", method: "GET", headers: {}, body: "" } as const;
    const example = { accessKeyId: "AKIDEXAMPLE", secretAccessKey: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
    const scope = { region: "us-east-1", service: "service", now: new Date("2015-08-30T12:36:00.000Z") };
    expect(signed(request, example, scope)["authorization"]).toBe(
      "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, " +
        "SignedHeaders=host;x-amz-date, Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
    );
  });
});

describe("merging", () => {
  const file: PricesFile = {
    currency: "USD",
    sources: { old: { what: "an old list", asOf: "2026-01-01" }, other: { what: "another", asOf: "2026-02-01" } },
    prices: [
      { size: "a", capacity: "on-demand", source: "old", usdPerHour: { east: 1, west: 2 } },
      { size: "b", capacity: "spot", source: "other", usdPerHour: { east: 0.5 } },
      { size: "c", capacity: "on-demand", source: "old", usdPerHour: { east: 9 } },
    ],
  };
  const source = { key: `azure-retail-${today}`, what: "the API" };
  const region: FetchedRegion = {
    cloud: "azure",
    region: "east",
    sizes: ["a", "b"],
    sources: { "on-demand": source, spot: source },
    prices: [
      { size: "a", region: "east", capacity: "on-demand", usdPerHour: 1.1 },
      { size: "b", region: "east", capacity: "on-demand", usdPerHour: 3 },
    ],
  };

  test("replaces what was asked about alone, and says each change", () => {
    const { file: result, changes } = merged(file, [region], today);
    expect(result.prices).toEqual([
      { size: "a", capacity: "on-demand", source: source.key, usdPerHour: { east: 1.1 } },
      { size: "a", capacity: "on-demand", source: "old", usdPerHour: { west: 2 } },
      { size: "b", capacity: "on-demand", source: source.key, usdPerHour: { east: 3 } },
      { size: "c", capacity: "on-demand", source: "old", usdPerHour: { east: 9 } },
    ]);
    // A source that nothing is from any more is gone.
    expect(Object.keys(result.sources)).toEqual([source.key, "old"]);
    expect(result.sources[source.key]?.asOf).toBe(today);
    expect(changeLines(changes)).toEqual([
      "a in east, on-demand: 1 -> 1.1 USD an hour (+10.0 %)",
      "b in east, on-demand: unknown -> 3 USD an hour",
      "b in east, spot: 0.5 -> not sold",
    ]);
    expect(pricesFile.parse(result)).toStrictEqual(result);
  });

  test("the same answer again changes nothing", () => {
    const once = merged(file, [region], today).file;
    expect(merged(once, [region], today)).toStrictEqual({ file: once, changes: [] });
  });

  test("the checked-in file comes out with the same prices", async () => {
    const text = await readFile(join(repository, "infra/catalog/prices.json"), "utf8");
    const checkedIn = pricesFile.parse(JSON.parse(text));
    const { file: result } = merged(checkedIn, [], today);
    const key = ({ size, capacity, source: from }: PricesFile["prices"][number]): string =>
      `${size} ${capacity} ${from}`;
    const byKey = (prices: PricesFile["prices"]): unknown =>
      Object.fromEntries(prices.map((row) => [key(row), row.usdPerHour]));
    expect(byKey(result.prices)).toEqual(byKey(checkedIn.prices));
    expect(result.sources).toEqual(checkedIn.sources);
  });
});

test("the program never asks anybody unless it is told to, and names what is wrong", async () => {
  const program = promisify(execFile);
  const main = join(repository, "infra/commands/prices/main.ts");
  const said = async (...args: string[]): Promise<string> =>
    await program(process.execPath, [main, ...args]).then(
      ({ stdout }) => stdout,
      ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout + stderr,
    );
  expect(await said()).toContain("Usage: npm run prices -- refresh");
  expect(await said("refresh", "--cloud", "oracle")).toContain("there are azure and aws");
  expect(await said("refresh", "--region", "eastus")).toContain("--region needs --cloud");
  expect(await said("refresh", "--cloud", "azure", "--region", "east us")).toContain("is no name of a region");
});

test("every shared price has its source and date, and each name once in a cloud", () => {
  const names = auxPrices.map(({ cloud, item }) => `${cloud} ${item}`);
  expect(new Set(names).size).toBe(names.length);
  for (const price of auxPrices) {
    expect(price.asOf).toMatch(/^\d{4}-\d\d-\d\d$/);
    expect(price.source.length).toBeGreaterThan(3);
  }
});
