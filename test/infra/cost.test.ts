import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { defaultAssumptions } from "../../infra/cost/assumptions.ts";
import { costReport } from "../../infra/cost/cost-report.ts";
import { amountText, centsOf, columnTexts, divided, sumOf, usdText, type Amount } from "../../infra/cost/money.ts";
import { catalogue, type PriceBook } from "../../infra/cost/prices.ts";
import { levels, type CostReport, type Level } from "../../infra/cost/report.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { planOf } from "../support/plans.ts";
import { awsStack, azureStack, fleet, planned } from "../support/stacks.ts";

const today = "2026-11-21";
const assumptions = defaultAssumptions(today);

function reportOf(plan: CloudPlan, change: Partial<typeof assumptions> = {}): CostReport {
  return costReport(plan, { ...assumptions, ...change });
}

/** USD of what has a price, and of what it cannot exceed. */
function usd({ lowMicroUsd, highMicroUsd }: Amount): [number, number] {
  return [lowMicroUsd / 1_000_000, highMicroUsd / 1_000_000];
}

function sum(...parts: readonly number[]): number {
  return Number(parts.reduce((total, part) => total + part, 0).toFixed(6));
}

/** By hand, from the price lists: hours are 730. `spot` is what spot nodes cost at most, which is in the second sum alone. */
const byHand: Readonly<
  Record<"azure-dev" | "azure-prod" | "aws-dev" | "aws-prod", Readonly<Record<Level, { known: number; spot: number }>>>
> = {
  "azure-dev": {
    // No GPU node; 1 system node, Free tier, NAT, 2 addresses, balancer, 32.33 GB, 1 disk (P10), 20 GB of logs.
    minimum: {
      known: sum(0.192 * 730, 0, 0.045 * 730, 2 * 0.005 * 730, 0.025 * 730, 32.33 * 0.0208, 19.71, 20 * 2.99),
      spot: 0,
    },
    // 0.8 of the 2 A100 nodes, 1.8 of the 3 system nodes.
    expected: {
      known: sum(1.8 * 0.192 * 730, 32.85, 7.3, 18.25, 32.33 * 0.0208, 1.8 * 19.71, 59.8),
      spot: 0.8 * 3.673 * 730,
    },
    // 2 A100 nodes at the price on demand, 3 system nodes.
    maximum: {
      known: sum(2 * 3.673 * 730, 3 * 0.192 * 730, 32.85, 7.3, 18.25, 32.33 * 0.0208, 3 * 19.71, 59.8),
      spot: 0,
    },
  },
  "azure-prod": {
    // H100 node, A100 node for embeddings; a spot node; 3 system nodes, Standard tier, NAT, 2 addresses, 2 private
    // endpoints, balancer, cache, PostgreSQL's 2 x 128 GB, 3 disks, logs, metrics of 6 nodes (26.28 batches each).
    minimum: {
      known: sum(
        98.32 * 730,
        3.673 * 730,
        3 * 0.192 * 730,
        73,
        32.85,
        7.3,
        2 * 0.01 * 730,
        18.25,
        143.29 * 0.026,
        256 * 0.138,
        3 * 19.71,
        59.8,
        6 * 26.28 * 0.16,
      ),
      spot: 6.98 * 730,
    },
    // 1.4 H100 nodes, 1.4 A100 nodes, 3.8 spot nodes, 4.2 system nodes: 10.8 nodes.
    expected: {
      known: sum(
        1.4 * 98.32 * 730,
        1.4 * 3.673 * 730,
        4.2 * 0.192 * 730,
        73 + 32.85 + 7.3 + 14.6 + 18.25,
        143.29 * 0.026,
        256 * 0.138,
        4.2 * 19.71,
        59.8,
        10.8 * 26.28 * 0.16,
      ),
      spot: 3.8 * 6.98 * 730,
    },
    // 2 H100 nodes, 2 A100 nodes, 8 of the dearest of `single` (never all four kinds), 6 system nodes: 18 nodes.
    maximum: {
      known: sum(
        2 * 98.32 * 730,
        2 * 3.673 * 730,
        8 * 6.98 * 730,
        6 * 0.192 * 730,
        73 + 32.85 + 7.3 + 14.6 + 18.25,
        143.29 * 0.026,
        256 * 0.138,
        6 * 19.71,
        59.8,
        18 * 26.28 * 0.16,
      ),
      spot: 0,
    },
  },
  "aws-dev": {
    // 1 system node, EKS, 1 NAT, 3 addresses (NAT, balancer in 2 zones), balancer, key, 32.33 GB, 80 GB of disks, 66 GB
    // of disks of stores, 20 GB of logs. Endpoints: S3's gateway, free.
    minimum: {
      known: sum(0.2016 * 730, 73, 32.85, 10.95, 0.0225 * 730, 1, 32.33 * 0.023, 80 * 0.08, 66 * 0.08, 20 * 0.5),
      spot: 0,
    },
    expected: {
      known: sum(
        1.8 * 0.2016 * 730,
        73 + 32.85 + 10.95 + 16.425 + 1,
        32.33 * 0.023,
        (1.8 * 80 + 0.8 * 256) * 0.08,
        66 * 0.08,
        10,
      ),
      spot: 0.8 * 2.24208 * 730,
    },
    maximum: {
      known: sum(
        2 * 2.24208 * 730,
        3 * 0.2016 * 730,
        73 + 32.85 + 10.95 + 16.425 + 1,
        32.33 * 0.023,
        (3 * 80 + 2 * 256) * 0.08,
        66 * 0.08,
        10,
      ),
      spot: 0,
    },
  },
  "aws-prod": {
    // 8 x H100, T4 for embeddings, a spot L40S; 3 system nodes, EKS, 3 NAT, 6 addresses, 10 endpoints in 3 zones,
    // balancer, key, cache, disks, PostgreSQL's storage in two zones, logs.
    minimum: {
      known: sum(
        55.04 * 730,
        0.526 * 730,
        3 * 0.2016 * 730,
        73,
        3 * 32.85,
        6 * 3.65,
        30 * 7.3,
        16.425,
        1,
        143.29 * 0.023,
        (3 * 80 + 3 * 256) * 0.08,
        128 * 0.23,
        10,
      ),
      spot: 2.24208 * 730,
    },
    expected: {
      known: sum(
        1.4 * 55.04 * 730,
        1.4 * 0.526 * 730,
        4.2 * 0.2016 * 730,
        73 + 98.55 + 21.9 + 219 + 16.425 + 1,
        143.29 * 0.023,
        (4.2 * 80 + 6.6 * 256) * 0.08,
        128 * 0.23,
        10,
      ),
      spot: 3.8 * 2.24208 * 730,
    },
    maximum: {
      known: sum(
        2 * 55.04 * 730,
        2 * 0.526 * 730,
        8 * 3.00424 * 730,
        6 * 0.2016 * 730,
        73 + 98.55 + 21.9 + 219 + 16.425 + 1,
        143.29 * 0.023,
        (6 * 80 + 12 * 256) * 0.08,
        128 * 0.23,
        10,
      ),
      spot: 0,
    },
  },
};

describe.each(["azure-dev", "azure-prod", "aws-dev", "aws-prod"] as const)("%s", (name) => {
  test.each(levels)("costs at the %s what a sum by hand says", async (level) => {
    const { total } = reportOf(await planOf(name));
    const { known, spot } = byHand[name][level];
    const [low, high] = usd(total[level]);
    expect(low).toBeCloseTo(known, 2);
    expect(high).toBeCloseTo(known + spot, 2);
  });

  test("is the sum of its parts, to the millionth of a USD", async () => {
    const { total, pools, shared, fleets, models, hourlyTotal } = reportOf(await planOf(name));
    for (const level of levels) {
      const of = (parts: readonly { cost: Record<Level, Amount> }[]): Amount =>
        sumOf(parts.map(({ cost }) => cost[level]));
      expect(usd(sumOf([of(pools), of(shared)]))).toEqual(usd(total[level]));
      const unused = sumOf(pools.map((pool) => pool.unused[level]));
      expect(usd(sumOf([of(fleets), unused]))).toEqual(usd(of(pools)));
      expect(usd(of(models))).toEqual(usd(of(fleets)));
      expect(hourlyTotal[level].lowMicroUsd).toBe(Math.round(total[level].lowMicroUsd / 730));
    }
  });
});

test("what has no price is named and never 0", async () => {
  const { total, unknown, shared, pools } = reportOf(await planOf("azure-prod"));
  expect(total.minimum.unbounded).toEqual([
    "OS disks of 256 GiB",
    "Managed Grafana (Standard)",
    "Redis (Balanced_B3, two nodes)",
    "PostgreSQL (Standard_D2ds_v5, two nodes)",
  ]);
  expect(amountText(total.minimum)).toBe("at least 75,204.58 to 80,299.98");
  expect(unknown).toContain("spot price of Standard_NC40ads_H100_v5 in eastus2");
  expect(unknown.join()).toContain("fleet vision (qwen2.5-vl-7b): no published throughput");
  const redis = shared.find(({ id }) => id === "redis");
  expect(redis && amountText(redis.cost.expected)).toBe("unknown");
  const single = pools.find((pool) => pool.name === "single");
  expect(single && amountText(single.cost.minimum)).toBe("unknown, at most 5,095.40");
});

test("a size or region without a price is a gap with its name, up to the total", async () => {
  const nothing: PriceBook = {
    node: () => ({ usdPerHour: null, source: "none", asOf: today }),
    item: () => undefined,
  };
  const plan = planned({ ...azureStack, region: "eastus2" });
  const unpriced = {
    ...plan,
    pools: plan.pools.map((pool) => ({ ...pool, price: { usdPerHour: null, source: "no price", asOf: today } })),
  };
  const { total, unknown } = costReport(unpriced, assumptions, nothing);
  expect(unknown).toContain("on-demand price of Standard_NC24ads_A100_v4 in eastus2");
  expect(total.maximum.unbounded).toContain("on-demand price of Standard_NC24ads_A100_v4 in eastus2");
  expect(total.maximum.unbounded).toContain("NAT gateway");
  expect(amountText(total.maximum)).toMatch(/^at least /);
});

test("a spot price with a date is a range up to the price on demand", () => {
  const plan = planned({
    ...azureStack,
    region: "eastus",
    pools: [{ name: "gpus", sizes: ["Standard_NC24ads_A100_v4"], capacity: ["spot"], maxNodes: 4 }],
    fleets: [{ ...fleet, spot: true }],
  });
  const [pool] = reportOf(plan).pools;
  expect(pool && usd(pool.cost.minimum)).toEqual([0.444 * 730, 3.673 * 730]);
  expect(pool?.variants[0]?.price.asOf).toBe("2024-07-01");
  // Never more than on demand, so the maximum is known.
  expect(pool && amountText(pool.cost.maximum)).toBe(usdText(4 * 3.673 * 730 * 1_000_000));
});

test("reserved nodes cost whether they are used or not, and only their contract's price", () => {
  const pools = [
    {
      name: "gpus",
      sizes: ["g6e.2xlarge"],
      capacity: ["reserved", "on-demand"],
      maxNodes: 4,
      reservation: { id: "cr-0123456789abcdef0", nodes: 2, discountPercent: 50 },
    },
  ];
  const report = reportOf(planned({ ...awsStack, pools, fleets: [{ ...fleet, replicas: { min: 0, max: 3 } }] }));
  const [pool] = report.pools;
  // 2 reserved at half price (1.121) at every level; at the maximum 2 more on demand.
  expect(pool && usd(pool.cost.minimum)[0]).toBeCloseTo(2 * 1.121 * 730, 4);
  expect(pool && usd(pool.unused.minimum)[0]).toBeCloseTo(2 * 1.121 * 730, 4);
  expect(pool && usd(pool.cost.maximum)[0]).toBeCloseTo((2 * 1.121 + 2 * 2.24208) * 730, 4);
  expect(report.capacity.find(({ capacity }) => capacity === "reserved")).toMatchObject({ nodes: 2, share: 1 });
});

test("fleets that must not lose their nodes are never counted on spot", () => {
  const pools = [{ name: "gpus", sizes: ["g6e.2xlarge"], capacity: ["spot", "on-demand"], maxNodes: 4 }];
  const steady = { ...fleet, name: "steady", spot: false, replicas: { min: 1, max: 1 } };
  const other = { ...fleet, name: "other", spot: true, models: ["other"], replicas: { min: 1, max: 1 } };
  const models = [
    { id: "llama", source: "hf://meta-llama/Llama-3.1-8B-Instruct", format: "safetensors" },
    { id: "other", source: "hf://meta-llama/Llama-3.1-8B-Instruct", format: "safetensors" },
  ];
  const report = reportOf(planned({ ...awsStack, models, pools, fleets: [steady, other] }));
  const cost = (name: string): string | undefined => {
    const found = report.fleets.find((each) => each.name === name);
    return found && amountText(found.cost.minimum);
  };
  expect(cost("steady")).toBe("1,636.72");
  expect(cost("other")).toBe("unknown, at most 1,636.72");
});

test("tokens: USD an hour over tokens a second x 0.0036 x utilisation", async () => {
  const { fleets, models } = reportOf(await planOf("azure-prod"));
  const tokens = fleets.find(({ name }) => name === "large")?.perMillionTokens;
  // Half of a node of 98.32 USD an hour; 4860 tokens a second at 40 %.
  const outputOnly = 49.16 / (4860 * 0.0036 * 0.4);
  expect(tokens?.source).toContain("TensorRT-LLM");
  expect(tokens && usd(tokens.outputOnly)[0]).toBeCloseTo(outputOnly, 5);
  // As many prompt tokens, each worth a quarter: 1.25 parts.
  expect(tokens && usd(tokens.output)[0]).toBeCloseTo(outputOnly / 1.25, 5);
  expect(tokens && usd(tokens.input)[0]).toBeCloseTo(outputOnly / 5, 5);
  expect(models.find(({ id }) => id === "bge-m3")?.perMillionTokens).toBeNull();
});

test("models of a fleet share it evenly, or as stated", async () => {
  const plan = await planOf("aws-prod");
  const even = reportOf(plan).models.filter((model) => model.fleet === "small");
  expect(even.map(({ share }) => share)).toEqual([1 / 3, 1 / 3, 1 / 3]);
  expect(even[0]?.shareSource).toBe("evenly among its fleet's models");
  const stated = reportOf(plan, { modelShares: { "llama-3.1-8b": 3, "qwen3-8b": 1 } });
  const part = (id: string): string | undefined => {
    const found = stated.models.find((model) => model.id === id);
    return found && usdText(found.cost.maximum.lowMicroUsd);
  };
  expect([part("llama-3.1-8b"), part("qwen3-8b"), part("mistral-7b")]).toEqual(["6,579.29", "2,193.10", "0.00"]);
});

test("the budget's lines say what alerts do not do, and what the caps are", async () => {
  const { budget, pools } = reportOf(await planOf("aws-prod"));
  expect(budget.lines.join("\n")).toContain("stops nothing");
  expect(budget.lines.join("\n")).toContain("Hard caps are the pools' maxima");
  expect(budget.lines.find((line) => line.startsWith("single"))).toBe(
    "single: 8 nodes by its fleets' maximum replicas, and Karpenter's limits; its kinds of node have maxima of their own, together 32.",
  );
  expect(pools.reduce((all, pool) => all + pool.gpus.maximum, 0)).toBe(26);
  const poor = await planOf("aws-prod");
  const tight = reportOf({ ...poor, budget: { ...poor.budget, monthlyUsd: 1 } }).budget.lines[0];
  expect(tight).toContain(": above it.");
});

test("prices older than the limit are called old", async () => {
  const plan = await planOf("aws-dev");
  expect(reportOf(plan).sources.every(({ isStale }) => isStale)).toBe(true);
  const fresh = reportOf(plan, { today: "2026-08-22" }).sources;
  expect(fresh.map(({ ageDays }) => ageDays)).toContain(33);
  expect(fresh.some(({ isStale }) => isStale)).toBe(false);
});

test("a region outside the US says that shared prices are of the US", () => {
  const plan = planned({ ...awsStack, region: "eu-central-1" });
  expect(reportOf(plan).notIncluded.join()).toContain("at prices of US regions; in eu-central-1 they differ");
  expect(reportOf(planned(awsStack)).notIncluded.join()).not.toContain("US regions");
});

test("floors by the clock are named", () => {
  const schedule = [{ start: "0 8 * * 1-5", end: "0 18 * * 1-5", replicas: 2 }];
  const report = reportOf(planned({ ...awsStack, fleets: [{ ...fleet, scaling: { schedule } }] }));
  expect(report.notIncluded.join()).toContain("Floors by the clock of small");
});

test("more is never cheaper: the expected share, replicas, and levels one after the other", async () => {
  const plan = await planOf("aws-prod");
  const share = fc.double({ min: 0, max: 1, noNaN: true });
  fc.assert(
    fc.property(share, share, (a, b) => {
      const [less, more] = [Math.min(a, b), Math.max(a, b)].map((expected) => reportOf(plan, { expected }).total);
      expect(less?.expected.highMicroUsd).toBeLessThanOrEqual((more?.expected.highMicroUsd ?? 0) + 1);
      expect(more?.minimum.highMicroUsd).toBeLessThanOrEqual((more?.expected.highMicroUsd ?? 0) + 1);
      expect(more?.expected.highMicroUsd).toBeLessThanOrEqual((more?.maximum.highMicroUsd ?? 0) + 1);
    }),
    { numRuns: 30 },
  );
});

describe("money", () => {
  test("divides without losing or making a unit", () => {
    const weights = fc.array(fc.double({ min: 0, max: 1e9, noNaN: true }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 1e13 }), weights, (whole, parts) => {
        const shares = divided(whole, parts);
        expect(shares.reduce((total, share) => total + share, 0)).toBe(whole);
        expect(shares.every((share) => share >= -1 && Number.isInteger(share))).toBe(true);
      }),
    );
    expect(divided(100, [1, 1, 1])).toEqual([34, 33, 33]);
    expect(divided(7, [0, 0])).toEqual([4, 3]);
    expect(divided(5, [])).toEqual([]);
  });

  test("columns add up to their total's cents", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 1e12 }), { minLength: 1, maxLength: 30 }), (amounts) => {
        const total = Math.round(amounts.reduce((all, each) => all + each, 0) / 10_000);
        expect(centsOf(amounts).reduce((all, each) => all + each, 0)).toBe(total);
      }),
    );
    const third: Amount = { lowMicroUsd: 3_333_333, highMicroUsd: 3_333_333, unknown: [], unbounded: [] };
    expect(columnTexts([third, third, third])).toEqual(["3.34", "3.33", "3.33", "10.00"]);
  });

  test("says what it does not know", () => {
    const of = (low: number, high: number, names: { unknown?: string[]; unbounded?: string[] } = {}): string =>
      amountText({ lowMicroUsd: low * 1e6, highMicroUsd: high * 1e6, unknown: [], unbounded: [], ...names });
    const open = { unknown: ["a"], unbounded: ["a"] };
    expect(of(1234567.891, 1234567.891)).toBe("1,234,567.89");
    expect(of(1, 2)).toBe("1.00 to 2.00");
    expect(of(0, 2, { unknown: ["a"] })).toBe("unknown, at most 2.00");
    expect(of(0, 0, open)).toBe("unknown");
    expect(of(3, 3, open)).toBe("at least 3.00");
  });
});

test("the catalogue is what a report uses unless others are given", () => {
  const plan = planned(awsStack);
  expect(costReport(plan, assumptions)).toStrictEqual(costReport(plan, assumptions, catalogue));
  expect(JSON.parse(JSON.stringify(reportOf(plan)))).toStrictEqual(reportOf(plan));
});
