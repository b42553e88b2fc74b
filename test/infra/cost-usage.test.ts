import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { allocated, type AllocationOptions, type UsageReport } from "../../infra/cost/allocation.ts";
import { defaultAssumptions } from "../../infra/cost/assumptions.ts";
import { BusyTime } from "../../infra/cost/busy-time.ts";
import { costReport } from "../../infra/cost/cost-report.ts";
import { gaugesText } from "../../infra/cost/gauges.ts";
import { terminalText } from "../../infra/cost/terminal.ts";
import { nobody } from "../../infra/cost/usage-costs.ts";
import { usageDocument } from "../../infra/cost/usage-document.ts";
import { replicaSeconds, UsageSummary, type ReplicaSeconds, type UsedRequest } from "../../infra/cost/usage.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { planOf } from "../support/plans.ts";
import { awsStack, fleet, model, planned } from "../support/stacks.ts";

const assumptions = defaultAssumptions("2026-11-21");

/** One pool, two models on it that share a fleet; one node of 2.24208 USD an hour at the minimum. */
const plan = planned({
  ...awsStack,
  models: [model("small", "llama-3.1-8b"), model("other", "qwen3-8b")],
  fleets: [{ ...fleet, models: ["small", "other"], concurrency: 8, replicas: { min: 1, max: 2 } }],
});

let requests = 0;
function request(change: Partial<UsedRequest> = {}): UsedRequest {
  requests += 1;
  return {
    time: "2026-11-01T01:00:00.000Z",
    requestId: `r${requests}`,
    tenant: "acme",
    model: "small",
    adapter: null,
    class: "interactive",
    promptTokens: 0,
    cachedTokens: 0,
    completionTokens: 100,
    audioSeconds: 0,
    durationMs: 0,
    replica: "r1",
    provider: null,
    costUsd: 0,
    coldStartSeconds: 0,
    ...change,
  };
}

function joined(
  used: readonly UsedRequest[],
  change: Partial<AllocationOptions> = {},
  where: CloudPlan = plan,
): UsageReport {
  const summary = new UsageSummary(assumptions);
  for (const each of used) summary.add(each);
  const options = { hours: 10, level: "minimum", bills: { shared: 0 }, times: summary.times(), ...change } as const;
  return allocated({ plan: where, report: costReport(where, assumptions), usage: summary.rows() }, options);
}

function usd(microUsd: number | null | undefined): number | null {
  return microUsd === null || microUsd === undefined ? null : microUsd / 1_000_000;
}

const seconds = (busy: number, idle: number, coldStart: number): ReplicaSeconds => ({ busy, idle, coldStart });

test("time at work is divided by tokens, a cold start goes to who waited, idle time to who uses the model", () => {
  const used = [
    request({ tenant: "acme", completionTokens: 300 }),
    request({ tenant: "beta", completionTokens: 100, coldStartSeconds: 60 }),
  ];
  // A bill of 36.00 USD for 10 hours of one replica: 0.001 USD a second.
  const times = new Map([["small", seconds(20_000, 12_000, 4_000)]]);
  const { rows, pools, gaps, totalMicroUsd } = joined(used, { bills: { gpus: 36, shared: 4 }, times, hours: 10 });
  const of = (tenant: string): UsageReport["rows"][number] | undefined => rows.find((row) => row.tenant === tenant);
  // Node seconds of the bill: 36 / 2.24208 h = 57,804 s; of them 36,000 are the model's. The rest stood without a replica.
  const total = (36 / 2.24208) * 3600;
  const perSecond = 36 / total;
  expect(usd(of("acme")?.directMicroUsd)).toBeCloseTo(15_000 * perSecond, 5);
  expect(usd(of("beta")?.directMicroUsd)).toBeCloseTo(5_000 * perSecond, 5);
  expect(usd(of("acme")?.coldStartMicroUsd)).toBe(0);
  expect(usd(of("beta")?.coldStartMicroUsd)).toBeCloseTo(4_000 * perSecond, 5);
  expect(usd(of("acme")?.idleMicroUsd)).toBeCloseTo((9_000 + 0.75 * (total - 36_000)) * perSecond, 5);
  expect(usd(of("beta")?.idleMicroUsd)).toBeCloseTo((3_000 + 0.25 * (total - 36_000)) * perSecond, 5);
  // What is shared follows the rest, and everything adds up to the bills.
  expect(usd(of("acme")?.sharedMicroUsd)).toBeCloseTo((4 * usdOf(of("acme"))) / 36, 4);
  expect(totalMicroUsd).toBe(40_000_000);
  expect(pools[0]).toMatchObject({ pool: "gpus", billMicroUsd: 36_000_000, source: "as stated" });
  expect(gaps).toEqual([]);
});

function usdOf(row: UsageReport["rows"][number] | undefined): number {
  return ((row?.directMicroUsd ?? 0) + (row?.coldStartMicroUsd ?? 0) + (row?.idleMicroUsd ?? 0)) / 1_000_000;
}

test("prompt tokens weigh less than completion tokens, cached ones least", () => {
  const used = [
    request({ tenant: "writes", completionTokens: 100 }),
    request({ tenant: "reads", promptTokens: 400, completionTokens: 0 }),
    request({ tenant: "repeats", promptTokens: 4000, cachedTokens: 4000, completionTokens: 0 }),
  ];
  const { rows } = joined(used, { bills: { gpus: 30, shared: 0 } });
  // 100 = 400 x 0.25 = 4000 x 0.025.
  expect(rows.map((row) => usd(row.totalMicroUsd))).toEqual([10, 10, 10]);
});

test("adapters, classes and models are told apart, and a model that nobody used is nobody's", () => {
  const used = [
    request({ adapter: "sql" }),
    request({ adapter: null }),
    request({ class: "batch", tenant: "beta", completionTokens: 200 }),
  ];
  const times = new Map([
    ["small", seconds(1_000, 0, 0)],
    ["other", seconds(0, 1_000, 0)],
  ]);
  const { rows } = joined(used, { times, hours: 2_000 / 3600, level: "minimum", bills: { shared: 0 } });
  const key = ({ tenant, model: id, adapter, class: kind }: UsageReport["rows"][number]): string =>
    [tenant, id, adapter, kind].join(" ");
  const half = Math.round((2.24208 * 2_000) / 36) / 100 / 2;
  const costs = new Map(rows.map((row) => [key(row), usd(row.totalMicroUsd)]));
  expect(costs.get(`${nobody} other  `)).toBeCloseTo(half, 4);
  expect(costs.get("acme small sql interactive")).toBeCloseTo(half / 4, 4);
  expect(costs.get("acme small  interactive")).toBeCloseTo(half / 4, 4);
  expect(costs.get("beta small  batch")).toBeCloseTo(half / 2, 4);
});

test("without metrics, records tell the time at work, and the rest of the bill is idle", () => {
  // Of 3600 s: 900 until the replica was ready, then 450 with one request and two more beside it.
  const used = [
    request({ time: "2026-11-01T01:00:00.000Z", durationMs: 1_350_000, coldStartSeconds: 900 }),
    request({ time: "2026-11-01T00:55:00.000Z", durationMs: 100_000 }),
    request({ time: "2026-11-01T00:56:00.000Z", durationMs: 100_000 }),
  ];
  const { pools } = joined(used, { hours: 1 });
  const [pool] = pools;
  expect(usd(pool?.billMicroUsd)).toBe(2.24);
  expect(usd(pool?.directMicroUsd)).toBeCloseTo(2.24 / 8, 5);
  expect(usd(pool?.coldStartMicroUsd)).toBeCloseTo(2.24 / 4, 5);
  expect(usd(pool?.idleMicroUsd)).toBeCloseTo((2.24 * 5) / 8, 5);
});

test("a bill with no use at all is nobody's, and still whole", () => {
  const { rows, totalMicroUsd, pools } = joined([], { bills: { gpus: 12.34, shared: 5 } });
  expect(pools[0]).toMatchObject({ idleMicroUsd: 12_340_000 });
  expect(rows.map(({ tenant }) => tenant)).toEqual([nobody]);
  expect(totalMicroUsd).toBe(17_340_000);
});

test("what a provider answered costs what it charged, and no part of a pool", () => {
  const used = [request(), request({ provider: "openai", model: "gpt-9", tenant: "beta", costUsd: 0.123456 })];
  const { rows, providerMicroUsd, gaps } = joined(used);
  expect(providerMicroUsd).toBe(123_456);
  expect(rows.find(({ provider }) => provider === "openai")).toMatchObject({
    tenant: "beta",
    directMicroUsd: 0,
    sharedMicroUsd: 0,
    totalMicroUsd: 123_456,
  });
  expect(gaps).toEqual([]);
});

test("a model that the plan does not know, and a pool without a price, are gaps with their names", async () => {
  const azure = await planOf("azure-prod");
  const used = [
    request({ model: "gone", promptTokens: 10, completionTokens: 5 }),
    request({ model: "llama-3.3-70b" }),
    request({ model: "llama-3.1-8b" }),
  ];
  const unpriced = joined(used, { bills: {} }, azure);
  const { gaps, rows, pools } = unpriced;
  expect(gaps).toContain(
    "model gone: 1 request with 15 tokens, and the plan does not know it: no part of any bill is theirs",
  );
  expect(gaps.join("\n")).toMatch(/pool single: no price known: spot price of Standard_NC40ads_H100_v5 in eastus2/);
  expect(gaps.join("\n")).toContain("shared: Redis (Balanced_B3, two nodes) has no price");
  expect(rows.some((row) => row.model === "gone")).toBe(false);
  expect(pools.find(({ pool }) => pool === "single")?.billMicroUsd).toBeNull();
  // Its models are of unknown cost, in no form of 0.
  expect(rows.find((row) => row.model === "llama-3.1-8b")).toMatchObject({ isPriced: false });
  const text = terminalText(usageDocument(unpriced, "a day"));
  expect(text).toMatch(/llama-3\.1-8b +1 +100 +unknown +unknown +unknown +unknown +0\.00 +unknown\n/);
  expect(text).toMatch(/\nTotal +unknown +unknown +at least [\d,.]+ +at least [\d,.]+ +0\.00 +at least [\d,.]+\n/);
  expect(gaugesText(unpriced, 0.25)).toContain('model_name="llama-3.3-70b"');
  expect(gaugesText(unpriced, 0.25)).not.toContain("llama-3.1-8b");
  // The bill that somebody states closes the gap.
  const stated = joined(used, { bills: { single: 100, shared: 0 } }, azure);
  expect(stated.gaps.join("\n")).not.toContain("pool single");
  expect(stated.pools.find(({ pool }) => pool === "single")?.billMicroUsd).toBe(100_000_000);
});

test("every cent of every bill is somebody's", () => {
  const row = fc.record({
    tenant: fc.constantFrom("a", "b", "c"),
    model: fc.constantFrom("small", "other"),
    adapter: fc.constantFrom(null, "x"),
    class: fc.constantFrom("interactive", "batch"),
    promptTokens: fc.integer({ min: 0, max: 1e6 }),
    cachedTokens: fc.integer({ min: 0, max: 1e6 }),
    completionTokens: fc.integer({ min: 0, max: 1e6 }),
    durationMs: fc.integer({ min: 0, max: 1e7 }),
    replica: fc.constantFrom(null, "r1", "r2"),
    coldStartSeconds: fc.integer({ min: 0, max: 600 }),
  });
  const time = fc.double({ min: 0, max: 1e7, noNaN: true });
  const times = fc.option(fc.tuple(time, time, time));
  const cents = fc.integer({ min: 0, max: 1e9 });
  fc.assert(
    fc.property(fc.array(row, { maxLength: 30 }), times, fc.tuple(cents, cents), (used, spent, [pool, shared]) => {
      const known = spent === null ? [] : [["small", seconds(...spent)] as const];
      const report = joined(
        used.map((each) => request(each)),
        { bills: { gpus: pool / 100, shared: shared / 100 }, ...(spent === null ? {} : { times: new Map(known) }) },
      );
      const sum = (of: (each: UsageReport["rows"][number]) => number): number =>
        report.rows.reduce((all, each) => all + of(each), 0);
      expect(sum((each) => each.directMicroUsd + each.coldStartMicroUsd + each.idleMicroUsd)).toBe(pool * 10_000);
      expect(sum((each) => each.sharedMicroUsd)).toBe(shared * 10_000);
      expect(sum((each) => each.totalMicroUsd)).toBe((pool + shared) * 10_000);
      const [bill] = report.pools;
      expect((bill?.directMicroUsd ?? 0) + (bill?.coldStartMicroUsd ?? 0) + (bill?.idleMicroUsd ?? 0)).toBe(
        pool * 10_000,
      );
    }),
    { numRuns: 200 },
  );
});

describe("a summary", () => {
  test("a replica is at work while it has a request, once for all that it has at a time", () => {
    const time = fc.integer({ min: 0, max: 100_000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(time, time), { maxLength: 40 }), (pairs) => {
        const spans = pairs.map(([a, b]) => [Math.min(a, b), Math.max(a, b)] as const);
        const busy = new BusyTime();
        for (const [start, end] of spans) busy.add(start, end);
        const edges = [...new Set(spans.flat())].toSorted((a, b) => a - b);
        const byHand = edges.slice(1).reduce((sum, end, at) => {
          const start = edges[at] ?? 0;
          return spans.some((span) => span[0] <= start && span[1] >= end) ? sum + end - start : sum;
        }, 0);
        expect(busy.seconds()).toBeCloseTo(byHand / 1000, 9);
      }),
    );
  });

  test("keeps few spans of many", () => {
    const busy = new BusyTime();
    for (let at = 0; at < 20_000; at += 1) busy.add(at * 10, at * 10 + 20);
    expect(busy.seconds()).toBeCloseTo(200.01, 9);
  });

  test("counts a record once, however often files repeat it", () => {
    const summary = new UsageSummary(assumptions);
    const twice = request({ completionTokens: 7 });
    for (const each of [twice, twice, request({ completionTokens: 1 })]) summary.add(each);
    expect(summary.repeated).toBe(1);
    expect(summary.rows()).toMatchObject([{ requests: 2, completionTokens: 8 }]);
  });

  test("spans from the first request's arrival to the last one's end", () => {
    const summary = new UsageSummary(assumptions);
    expect(summary.hours).toBe(0);
    expect(summary.period).toBeNull();
    summary.add(request({ time: "2026-11-01T01:00:00.000Z", durationMs: 3_600_000 }));
    summary.add(request({ time: "2026-11-01T02:30:00.000Z" }));
    expect(summary.hours).toBe(2.5);
    expect(summary.period).toEqual({ from: "2026-11-01T00:00:00.000Z", to: "2026-11-01T02:30:00.000Z" });
  });
});

test("a gateway's metrics page tells how long replicas were at what", () => {
  const page = [
    "# TYPE penstock_gateway_model_replica_seconds gauge",
    'penstock_gateway_model_replica_seconds{model="a",phase="busy"} 12.5',
    'penstock_gateway_model_replica_seconds{phase="idle",model="a"} 1e3',
    'penstock_gateway_model_replica_seconds{model="a",phase="cold_start"} 3',
    'penstock_gateway_model_replica_seconds{model="b",phase="dancing"} 3',
    "penstock_gateway_tokens_total 9",
  ].join("\n");
  expect([...replicaSeconds(page)]).toEqual([["a", { busy: 12.5, idle: 1000, coldStart: 3 }]]);
});

test("gauges have OpenCost's names; allocation adds up to the bill, usage is time at work", () => {
  const used = [request({ promptTokens: 1_000_000, completionTokens: 750_000, durationMs: 1_800_000 })];
  const report = joined(used, { hours: 1 });
  const text = gaugesText(report, assumptions.promptTokenWeight);
  const value = (name: string): number =>
    Number(
      text
        .split("\n")
        .find((line) => line.startsWith(`${name} `))
        ?.split(" ")
        .at(-1),
    );
  const labels = 'model_name="small",namespace="penstock",cost_basis=';
  expect(value(`llm_total_hourly_cost{${labels}"allocation"}`)).toBe(2.24);
  expect(value(`llm_total_hourly_cost{${labels}"usage"}`)).toBeCloseTo(1.12, 5);
  expect(value(`llm_cost_per_million_tokens{${labels}"allocation"}`)).toBeCloseTo(2.24 / 1.75, 5);
  // 750,000 completion tokens and 1,000,000 prompt tokens of a quarter each: 1,000,000 parts.
  const phase = (name: string): string =>
    `llm_cost_per_million_tokens{${labels}"allocation",phase="${name}",allocation_method="multiplier"}`;
  expect(value(phase("generation"))).toBeCloseTo(2.24, 5);
  expect(value(phase("prompt"))).toBeCloseTo(0.56, 5);
  expect(text).toMatch(/# TYPE llm_total_hourly_cost gauge/);
  expect(text.endsWith("\n")).toBe(true);
});

test("tables of use add up to the bills in every column", () => {
  const used = ["a", "b", "c"].flatMap((tenant) => [
    request({ tenant }),
    request({ tenant, model: "other", adapter: "x" }),
  ]);
  const report = joined(used, { bills: { gpus: 10, shared: 1 } });
  const { sections } = usageDocument(report, "a day");
  for (const id of ["by-tenant", "by-model", "by-adapter", "by-request-class"]) {
    const table = sections.find((section) => section.id === id);
    if (table?.kind !== "table") throw new Error(`no table ${id}`);
    const columns = table.rows.map((row) =>
      row.slice(3).map((cell) => Math.round(Number(cell.replaceAll(",", "")) * 100)),
    );
    const total = columns.at(-1);
    const sums = total?.map((_, at) => columns.slice(0, -1).reduce((all, row) => all + (row[at] ?? 0), 0));
    expect(sums).toEqual(total);
    expect(total?.at(-1)).toBe(1100);
  }
  expect(terminalText(usageDocument(report, "a day"))).toContain("Cost of the use of test");
});
