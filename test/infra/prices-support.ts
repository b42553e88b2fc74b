import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";

/** What was asked of a price list. */
export interface Asked {
  readonly url: URL;
  readonly headers: IncomingMessage["headers"];
  readonly body: string;
}

/** A price list on this machine. */
export interface PriceList extends AsyncDisposable {
  readonly url: string;
  readonly asked: readonly Asked[];
}

/** Answers each request with what `answer` says; a number is a status without a list. */
export async function priceList(answer: (asked: Asked, count: number) => string | number): Promise<PriceList> {
  const asked: Asked[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(Buffer.from(part));
      const url = new URL(request.url ?? "/", `http://${request.headers.host}`);
      const one = { url, headers: request.headers, body: Buffer.concat(parts).toString() };
      asked.push(one);
      const said = answer(one, asked.length);
      response.statusCode = typeof said === "number" ? said : 200;
      response.end(typeof said === "number" ? "try later" : said);
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  // A server that listens on an address and a port has them.
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}/`,
    asked,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A row as the Azure Retail Prices API has it. */
export function azureItem(change: object = {}): object {
  return {
    currencyCode: "USD",
    tierMinimumUnits: 0,
    retailPrice: 3.673,
    unitPrice: 3.673,
    armRegionName: "eastus2",
    location: "US East 2",
    effectiveStartDate: "2026-01-01T00:00:00Z",
    meterId: "b1f9a4a5-0000-0000-0000-000000000000",
    meterName: "NC24ads A100 v4",
    productId: "DZH318Z08M9T",
    skuId: "DZH318Z08M9T/0001",
    productName: "Virtual Machines NCads A100 v4 Series",
    skuName: "NC24ads A100 v4",
    serviceName: "Virtual Machines",
    serviceId: "DZH313Z7MMC8",
    serviceFamily: "Compute",
    unitOfMeasure: "1 Hour",
    type: "Consumption",
    isPrimaryMeterRegion: true,
    armSkuName: "Standard_NC24ads_A100_v4",
    ...change,
  };
}

/** A page of rows. */
export function azurePage(items: readonly object[], next: string | null = null): string {
  const page = { BillingCurrency: "USD", CustomerEntityId: "Default", CustomerEntityType: "Retail" };
  return JSON.stringify({ ...page, Items: items, NextPageLink: next, Count: items.length });
}

/** A product as AWS's GetProducts has it: JSON in a string. */
export function awsProduct(usd: string, unit = "Hrs"): string {
  return JSON.stringify({
    product: {
      productFamily: "Compute Instance",
      attributes: { instanceType: "g6e.2xlarge", regionCode: "us-east-1" },
      sku: "ABC",
    },
    serviceCode: "AmazonEC2",
    terms: {
      OnDemand: {
        "ABC.JRTCKXETXF": {
          priceDimensions: {
            "ABC.JRTCKXETXF.6YS6EN2CT7": { unit, description: "per hour", pricePerUnit: { USD: usd }, appliesTo: [] },
          },
          sku: "ABC",
          effectiveDate: "2026-11-01T00:00:00Z",
        },
      },
    },
    version: "20261101000000",
    publicationDate: "2026-11-01T00:00:00Z",
  });
}

/** A page of EC2's spot price history. */
export function spotHistory(items: readonly { size: string; usd: string; zone: string }[], nextToken = ""): string {
  const texts = items.map(
    ({ size, usd, zone }) => `<item>
      <instanceType>${size}</instanceType>
      <productDescription>Linux/UNIX</productDescription>
      <spotPrice>${usd}</spotPrice>
      <timestamp>2026-11-21T09:00:00.000Z</timestamp>
      <availabilityZone>${zone}</availabilityZone>
    </item>`,
  );
  return `<?xml version="1.0" encoding="UTF-8"?>
<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>
  <spotPriceHistorySet>${texts.join("")}</spotPriceHistorySet>
  <nextToken>${nextToken}</nextToken>
</DescribeSpotPriceHistoryResponse>`;
}
