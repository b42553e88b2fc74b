import { describe, expect, test } from "vitest";
import { optimise } from "../../infra/capacity/optimise.ts";
import { capacityReport } from "../../infra/capacity/report.ts";
import type { RunResult } from "../../infra/capacity/result.ts";
import { scenarioOf, type Bounds, type Scenario } from "../../infra/capacity/scenario.ts";
import { simulateBins } from "../../infra/capacity/simulate-bins.ts";
import { simulateRequests } from "../../infra/capacity/simulate-requests.ts";
import { generated } from "../../infra/capacity/trace/generator.ts";
import { RequestColumns } from "../../infra/capacity/trace/requests.ts";
import type { Load } from "../../infra/capacity/trace/load.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { planOf } from "../support/plans.ts";

const slo = { ttftSeconds: 2, tpotSeconds: 0.1, share: 0.95 };

interface Case {
  readonly model: string;
  readonly bounds?: Readonly<Record<string, Bounds>>;
}

function scenario(plan: CloudPlan, { model, bounds = {} }: Case): Scenario {
  return scenarioOf(plan, {
    slo,
    cachedShare: 0,
    withoutSpot: true,
    seed: 1,
    mix: { [model]: 1 },
    bounds,
  });
}

function byRequest(subject: Scenario, load: Load): RunResult {
  const { columns, seconds } = load;
  if (columns === null) throw new Error("this load has its requests");
  return simulateRequests(subject, { columns, seconds });
}

function fleetOf(result: RunResult) {
  const found = result.fleets.find(({ tally }) => tally.requests > 0);
  if (found === undefined) throw new Error("some fleet had requests");
  const { tally, nodeSeconds } = found;
  return {
    tally,
    good: tally.goodShare,
    ttft50: tally.ttft.quantile(0.5) ?? 0,
    ttft95: tally.ttft.quantile(0.95) ?? 0,
    tpot50: tally.tpot.quantile(0.5) ?? 0,
    replicaHours: tally.replicaSeconds / 3_600,
    nodeHours: nodeSeconds.reduce((sum, each) => sum + each, 0) / 3_600,
  };
}

const always = (count: number): Bounds => ({ min: count, max: count, targetRequests: 30 });

describe("bins have what single requests have: latencies within 25 %, shares within 3 points, hours within 10 %", () => {
  test.each([
    { trace: "generator:conversation?rate=1&hours=2", model: "llama-3.1-8b", bounds: { small: always(1) } },
    { trace: "generator:conversation?rate=3&hours=2", model: "llama-3.1-8b", bounds: { small: always(1) } },
    { trace: "generator:conversation?rate=12&hours=2", model: "llama-3.1-8b", bounds: { small: always(4) } },
    { trace: "generator:chat?rate=60&hours=1", model: "llama-3.1-8b", bounds: { small: always(4) } },
    { trace: "generator:conversation?rate=1.5&hours=2", model: "llama-3.3-70b", bounds: { large: always(2) } },
    // Replicas come and go, and start from zero nodes.
    { trace: "generator:conversation?rate=3&hours=24&diurnal=0.8", model: "llama-3.3-70b" },
    {
      trace: "generator:conversation?rate=12&hours=24&diurnal=0.9",
      model: "llama-3.1-8b",
      bounds: { small: { min: 1, max: 12, targetRequests: 14 } },
    },
  ])("$trace on $model", async ({ trace, ...subject }) => {
    const plan = await planOf("azure-prod");
    const load = generated(trace, { binsOnly: false });
    const exact = fleetOf(byRequest(scenario(plan, subject), load));
    const bins = fleetOf(simulateBins(scenario(plan, subject), load));
    expect(bins.tally.requests).toBeCloseTo(exact.tally.requests, 0);
    expect(Math.abs(bins.good - exact.good)).toBeLessThan(0.03);
    for (const name of ["ttft50", "ttft95", "tpot50"] as const) {
      expect(bins[name] / exact[name], name).toBeGreaterThan(0.75);
      expect(bins[name] / exact[name], name).toBeLessThan(1.25);
    }
    for (const name of ["replicaHours", "nodeHours"] as const) {
      expect(bins[name] / exact[name], name).toBeGreaterThan(0.9);
      expect(bins[name] / exact[name], name).toBeLessThan(1.1);
    }
  });

  test("too little capacity is seen by both", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:chat?rate=100&minutes=30", { binsOnly: false });
    const subject = { model: "llama-3.1-8b", bounds: { small: always(4) } };
    expect(fleetOf(byRequest(scenario(plan, subject), load)).good).toBeLessThan(0.05);
    expect(fleetOf(simulateBins(scenario(plan, subject), load)).good).toBeLessThan(0.05);
  });
});

test("a year of a day's curve on 10,000 GPUs takes less than a minute", { timeout: 180_000 }, async () => {
  const plan = await planOf("azure-prod");
  const startedMs = performance.now();
  const load = generated("generator:chat?rate=130000&days=365&diurnal=0.6&weekend=0.7", { binsOnly: true });
  const subject = { model: "llama-3.1-8b", bounds: { small: { min: 2_000, max: 10_000, targetRequests: 30 } } };
  const { tally } = fleetOf(simulateBins(scenario(plan, subject), load));
  expect(performance.now() - startedMs).toBeLessThan(60_000);
  expect(tally.peakReplicas).toBe(10_000);
  expect(tally.requests).toBeGreaterThan(3e12);
  expect(tally.replicaSeconds / 3_600).toBeLessThan(10_000 * 8_760);
});

describe("a simulation of requests", () => {
  test("is the same for the same input, and counts every request once", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:code?rate=8&hours=1&seed=5", { binsOnly: false });
    const subject = scenario(plan, { model: "qwen3-8b" });
    const [one, other] = [byRequest(subject, load), byRequest(subject, load)].map((result) =>
      capacityReport(result, load),
    );
    expect(one).toEqual(other);
    const { tally } = fleetOf(byRequest(subject, load));
    expect(tally.served + tally.tooLong + tally.refused + tally.cut).toBe(load.requests);
    expect(tally.requests).toBe(load.requests);
  });

  test("from zero the first request waits for node, image, weights and engine", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:chat?rate=0.005&hours=1", { binsOnly: false });
    const subject = scenario(plan, { model: "qwen2.5-vl-7b" });
    const fleet = subject.fleets.find(({ fleet: { name } }) => name === "vision")?.fleet;
    const { nodeSeconds = 0, imageSeconds = 0, downloadSeconds = 0, loadSeconds = 0 } = fleet?.transitions ?? {};
    const { tally } = fleetOf(byRequest(subject, load));
    expect(tally.newNodeStarts).toBeGreaterThan(0);
    const longest = tally.ttft.quantile(1) ?? 0;
    const cold = nodeSeconds + imageSeconds + downloadSeconds + loadSeconds;
    expect(longest).toBeGreaterThan(cold * 0.97);
    expect(longest).toBeLessThan(cold * 1.1);
  });

  test("models that share replicas wait for each other, and are loaded once and then woken", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:chat?rate=0.02&hours=6", { binsOnly: false });
    const subject = scenarioOf(plan, {
      ...scenario(plan, { model: "qwen3-8b" }).settings,
      mix: { "llama-3.1-8b": 1, "qwen3-8b": 1, "mistral-7b": 1 },
    });
    const { tally } = fleetOf(byRequest(subject, load));
    expect(tally.modelLoads).toBe(2 * tally.peakReplicas);
    expect(tally.modelWakes).toBeGreaterThan(10);
    const alone = fleetOf(byRequest(scenario(plan, { model: "qwen3-8b" }), load)).tally;
    expect(alone.modelLoads).toBe(0);
    expect(alone.goodShare).toBeGreaterThan(tally.goodShare);
  });

  test("a model has its replica until it was idle for 30 s; then the other one is loaded", async () => {
    const plan = await planOf("azure-prod");
    const columns = new RequestColumns();
    columns.add({ atSeconds: 0, inputTokens: 100, outputTokens: 10, model: "qwen3-8b" });
    columns.add({ atSeconds: 1, inputTokens: 100, outputTokens: 10, model: "mistral-7b" });
    columns.add({ atSeconds: 20, inputTokens: 100, outputTokens: 10, model: "qwen3-8b" });
    const subject = scenario(plan, { model: "qwen3-8b", bounds: { small: always(1) } });
    const { tally } = fleetOf(simulateRequests(subject, { columns, seconds: 300 }));
    const small = subject.fleets.find(({ fleet }) => fleet.name === "small")?.fleet;
    if (small === undefined) throw new Error("azure-prod has a fleet `small`");
    const { downloadSeconds, loadSeconds } = small.transitions;
    const wait = tally.ttft.quantile(1) ?? 0;
    expect(wait).toBeGreaterThan(19 + 30 + downloadSeconds + loadSeconds - 3);
    expect(wait).toBeLessThan(19 + 30 + downloadSeconds + loadSeconds + 5);
    expect(tally.good).toBe(2);
  });

  test("what is too long for the context is refused and named; an unknown price stays unknown", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:conversation?rate=1&hours=1", { binsOnly: false });
    const settings = { ...scenario(plan, { model: "llama-3.1-8b" }).settings, withoutSpot: false };
    const report = capacityReport(byRequest(scenarioOf(plan, settings), load), load);
    const small = report.fleets.find(({ name }) => name === "small");
    expect(small?.tooLong).toBeGreaterThan(0);
    expect(report.gaps.join("\n")).toContain("longer than its context");
    expect(report.gaps.join("\n")).toContain("derived from memory speed");
    expect(small?.cost.unknown.join()).toContain("spot price of Standard_NC40ads_H100_v5");
    expect(small?.cost.highMicroUsd).toBeGreaterThan(0);
  });
});

describe("--optimise", () => {
  test("finds bounds that meet the SLO and cost no more than a fleet of constant size that does", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:conversation?rate=10&hours=24&diurnal=0.9", { binsOnly: true });
    const subject = scenario(plan, {
      model: "llama-3.1-8b",
      bounds: { small: { min: 1, max: 2, targetRequests: 18 } },
    });
    const [found] = optimise(subject, (each) => simulateBins(each, load));
    expect(found?.planned.goodShare).toBeLessThan(0.95);
    const { best } = found ?? {};
    if (best === undefined || best === null) throw new Error("some bounds meet it");
    expect(best.goodShare).toBeGreaterThanOrEqual(0.95);
    const constant = (count: number) =>
      simulateBins(scenario(plan, { model: "llama-3.1-8b", bounds: { small: always(count) } }), load);
    let needed = 1;
    while (fleetOf(constant(needed)).good < 0.95) needed += 1;
    expect(best.nodeHours).toBeLessThanOrEqual(fleetOf(constant(needed)).nodeHours);
    // What it suggests holds when it is run.
    const again = scenario(plan, { model: "llama-3.1-8b", bounds: { small: best.bounds } });
    expect(fleetOf(simulateBins(again, load)).good).toBeCloseTo(best.goodShare, 10);
  });

  test("says so when no number of replicas meets it", async () => {
    const plan = await planOf("azure-prod");
    const load = generated("generator:conversation?rate=1&hours=1", { binsOnly: false });
    const subject = scenario(plan, { model: "llama-3.3-70b" });
    const impossible = { ...subject, settings: { ...subject.settings, slo: { ...slo, ttftSeconds: 0.02 } } };
    const [found] = optimise(impossible, (each) => byRequest(each, load));
    expect(found?.best).toBeNull();
    expect(found?.why.join()).toContain("no number of replicas");
  });
});
