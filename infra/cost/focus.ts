import { hoursPerMonth } from "./money.ts";
import type { CostReport, Level, SharedCost, VariantCost } from "./report.ts";

/** Columns of FOCUS 1.2 in the specification's order, then ours: what a bill never needs and an estimate does. */
const columns = `
  AvailabilityZone BilledCost BillingAccountId BillingAccountName BillingAccountType BillingCurrency
  BillingPeriodEnd BillingPeriodStart CapacityReservationId CapacityReservationStatus ChargeCategory ChargeClass
  ChargeDescription ChargeFrequency ChargePeriodEnd ChargePeriodStart CommitmentDiscountCategory
  CommitmentDiscountId CommitmentDiscountName CommitmentDiscountQuantity CommitmentDiscountStatus
  CommitmentDiscountType CommitmentDiscountUnit ConsumedQuantity ConsumedUnit ContractedCost ContractedUnitPrice
  EffectiveCost InvoiceId InvoiceIssuer ListCost ListUnitPrice PricingCategory PricingCurrency
  PricingCurrencyContractedUnitPrice PricingCurrencyEffectiveCost PricingCurrencyListUnitPrice PricingQuantity
  PricingUnit Provider Publisher RegionId RegionName ResourceId ResourceName ResourceType ServiceCategory
  ServiceName ServiceSubcategory SkuId SkuMeter SkuPriceDetails SkuPriceId SubAccountId SubAccountName
  SubAccountType Tags x_Level x_PriceIsKnown x_UpperBoundCost x_PriceSource
`
  .trim()
  .split(/\s+/);

type Row = Readonly<Record<string, string>>;

/**
 * One level of a report as FOCUS 1.2 rows (CSV): what nodes of each kind and each shared item cost in the month of the
 * report's day. A cost that nobody knows is an empty cell, never 0, with `x_PriceIsKnown` false.
 */
export function focusRows(report: CostReport, level: Level): string {
  const rows = [
    ...report.pools.flatMap(({ name, variants }) =>
      variants.filter(({ nodes }) => nodes[level] > 0).map((variant) => nodeRow(name, variant, level)),
    ),
    ...report.shared.filter(({ quantity }) => quantity[level] > 0).map((item) => itemRow(item, level)),
  ].map((row): Row => ({ ...commonOf(report, level), ...row }));
  const lines = [columns, ...rows.map((row) => columns.map((column) => row[column] ?? ""))];
  return `${lines.map((cells) => cells.map(csvCell).join(",")).join("\n")}\n`;
}

function commonOf({ cloud, region, tags, assumptions, stack }: CostReport, level: Level): Row {
  const month = assumptions.today.slice(0, 7);
  const start = `${month}-01T00:00:00Z`;
  const next = new Date(Date.UTC(Number(month.slice(0, 4)), Number(month.slice(5)), 1));
  const end = next.toISOString().replace(".000", "");
  const provider = cloud === "azure" ? "Microsoft" : "AWS";
  return {
    BillingCurrency: "USD",
    BillingPeriodStart: start,
    BillingPeriodEnd: end,
    ChargePeriodStart: start,
    ChargePeriodEnd: end,
    ChargeCategory: "Usage",
    ChargeFrequency: "Usage-Based",
    PricingCurrency: "USD",
    Provider: provider,
    Publisher: provider,
    InvoiceIssuer: provider,
    RegionId: region,
    RegionName: region,
    SubAccountName: stack,
    Tags: JSON.stringify(tags),
    x_Level: level,
  };
}

/** Reserved nodes are charged as committed, spot at a price that moves. */
const pricingCategories = {
  reserved: "Committed",
  block: "Committed",
  spot: "Dynamic",
  "on-demand": "Standard",
} as const;

function nodeRow(pool: string, { name, size, capacity, price, nodes, cost }: VariantCost, level: Level): Row {
  // At the maximum a node costs the most that it can.
  const usd = level === "maximum" ? price.ceilingUsdPerHour : price.usdPerHour;
  return {
    ...costCells(usd, nodes[level] * hoursPerMonth, cost[level]),
    ChargeDescription: `${nodes[level]} ${capacity} nodes of ${size} on average`,
    ConsumedUnit: "Hours",
    PricingUnit: "Hours",
    PricingCategory: pricingCategories[capacity],
    ResourceId: name,
    ResourceName: pool,
    ResourceType: "Node pool",
    ServiceCategory: "Compute",
    ServiceName: "Virtual machines with GPUs",
    ServiceSubcategory: "Virtual Machines",
    SkuId: size,
    x_PriceSource: `${price.source} (${price.asOf})`,
  };
}

function itemRow(
  { id, name, category, quantity, unit, usdPerUnit, source, asOf, cost }: SharedCost,
  level: Level,
): Row {
  const isHourly = unit.endsWith(", by the hour");
  return {
    ...costCells(usdPerUnit, quantity[level] * (isHourly ? hoursPerMonth : 1), cost[level]),
    ChargeDescription: name,
    ConsumedUnit: isHourly ? "Hours" : unit,
    PricingUnit: isHourly ? "Hours" : unit,
    PricingCategory: "Standard",
    ResourceId: id,
    ResourceName: name,
    ServiceCategory: category,
    ServiceName: name,
    SkuId: id,
    x_PriceSource: asOf === "" ? source : `${source} (${asOf})`,
  };
}

function costCells(
  usd: number | null,
  quantity: number,
  { lowMicroUsd, highMicroUsd, unbounded }: CostReport["idle"],
): Row {
  const cost = usd === null ? "" : decimal(lowMicroUsd);
  const price = usd === null ? "" : String(usd);
  return {
    BilledCost: cost,
    ContractedCost: cost,
    EffectiveCost: cost,
    ListCost: cost,
    PricingCurrencyEffectiveCost: cost,
    ListUnitPrice: price,
    ContractedUnitPrice: price,
    PricingCurrencyListUnitPrice: price,
    PricingCurrencyContractedUnitPrice: price,
    ConsumedQuantity: String(Number(quantity.toFixed(6))),
    PricingQuantity: String(Number(quantity.toFixed(6))),
    x_PriceIsKnown: String(usd !== null),
    x_UpperBoundCost: unbounded.length > 0 ? "" : decimal(highMicroUsd),
  };
}

function decimal(microUsd: number): string {
  return (microUsd / 1_000_000).toFixed(6);
}

/** A cell that begins like a formula is text for a spreadsheet too. */
function csvCell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) && !/^-?\d/.test(text) ? `'${text}` : text;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
