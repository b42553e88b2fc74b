import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { derivedConstants, engineFor } from "../../infra/capacity/derived.ts";
import { Engine, type Work } from "../../infra/capacity/engine.ts";
import { calibrated, type EngineModel } from "../../infra/capacity/engine-model.ts";
import { gpuSpeeds } from "../../infra/capacity/gpus.ts";
import { Histogram } from "../../infra/capacity/histogram.ts";
import { NodeGroup } from "../../infra/capacity/nodes.ts";
import { behaviour, Scaler } from "../../infra/capacity/scaler.ts";
import { floors } from "../../infra/capacity/schedule.ts";
import { gpuSizes } from "../../infra/catalog/sizes.ts";
import type { ModelShape } from "../../infra/stack/shape.ts";
import { costProfiles } from "../fakes/engine/cost.ts";
import { FastEngine } from "../bench/routing-engine.ts";
import { generateConversations } from "../bench/routing-trace.ts";
import { renderKubernetes } from "../../infra/commands/manifests/render.ts";
import { planOf } from "../support/plans.ts";

const llama8: ModelShape = {
  parametersB: 8.03,
  layers: 32,
  attentionHeads: 32,
  kvHeads: 8,
  headSize: 128,
  hiddenSize: 4_096,
  vocabulary: 128_256,
  contextTokens: 131_072,
  weights: "bf16",
  vision: false,
  task: "generate",
};
const llama70: ModelShape = {
  ...llama8,
  parametersB: 70.55,
  layers: 80,
  attentionHeads: 64,
  hiddenSize: 8_192,
};

describe("engine constants", () => {
  const rows = [
    ...calibrated["llama-3.1-8b"].map((row) => ({
      ...row,
      shape: llama8,
      weightsGiB: 14.96,
      kvBytesPerToken: 131_072,
    })),
    ...calibrated["llama-3.1-70b"].map((row) => ({
      ...row,
      shape: llama70,
      weightsGiB: 131.4,
      kvBytesPerToken: 327_680,
    })),
  ];

  test.each(rows)("the rule for unlisted pairs gives back $shape.parametersB B on $gpus x $gpu", (row) => {
    const rule = derivedConstants(row, { gpu: row.gpu, count: row.gpus, nvlink: true });
    const ratio = (name: "w0" | "b" | "k" | "p1" | "p2"): number => (rule?.[name] ?? 0) / row[name];
    expect(ratio("w0")).toBeGreaterThan(0.9);
    expect(ratio("w0")).toBeLessThan(1.1);
    for (const name of ["k", "p1"] as const) {
      expect(ratio(name), name).toBeGreaterThan(0.75);
      expect(ratio(name), name).toBeLessThan(1.25);
    }
    for (const name of ["b", "p2"] as const) {
      expect(ratio(name), name).toBeGreaterThan(0.5);
      expect(ratio(name), name).toBeLessThan(2.1);
    }
  });

  test("a measured pair has its row, with the plan's KV cache; others say that they are derived", async () => {
    const plan = await planOf("azure-prod");
    const fleet = plan.fleets.find(({ name }) => name === "small");
    const model = plan.models.find(({ id }) => id === "llama-3.1-8b");
    const other = plan.models.find(({ id }) => id === "qwen3-8b");
    if (fleet === undefined || model === undefined || other === undefined) throw new Error("azure-prod has these");
    const sxm = { gpu: "NVIDIA H100 80GB SXM5", count: 1, nvlink: true };
    const measured = engineFor(fleet, model, sxm);
    expect(measured).toMatchObject({ isDerived: false, model: { w0: 5.66, p2: 5.06e-7, maxSequences: 256 } });
    const kvGiB = ((measured?.model.kvTokens ?? 0) * model.kvBytesPerToken) / 2 ** 30;
    expect(kvGiB).toBeCloseTo(fleet.memory.kvCacheGiB, 3);
    expect(engineFor(fleet, other, sxm)).toMatchObject({ isDerived: true });
    expect(engineFor(fleet, model, { ...sxm, gpu: "NVIDIA H100 NVL 94GB" })).toMatchObject({ isDerived: true });
    expect(engineFor(fleet, model, { ...sxm, gpu: "unheard of" })).toBeNull();
  });

  test("every GPU of the catalogue has a speed", () => {
    const missing = gpuSizes.map(({ gpu }) => gpu.model).filter((model) => gpuSpeeds[model] === undefined);
    expect(missing).toEqual([]);
  });
});

const { kvTokens, w0, b, k, p1, p2 } = costProfiles["8b-h100-tp1"];
const h100: EngineModel = { w0, b, k, p1, p2, kvTokens, maxSequences: 256, chunkTokens: 8_192 };

/** Times of every request on one engine, in ms. */
function served(works: readonly Work[], model = h100): { firstMs: number; endMs: number; work: Work }[] {
  const done: { firstMs: number; endMs: number; work: Work }[] = [];
  const engine = new Engine(
    [model],
    {
      onEnd: (work, firstMs, endMs) => done.push({ work, firstMs, endMs }),
      switchMs: () => 0,
      onSwitch: () => undefined,
    },
    { atMs: 0, model: 0, cachedShare: 0 },
  );
  for (const work of works) {
    engine.advance(work.arrivedMs);
    engine.submit(work, work.arrivedMs);
  }
  engine.advance(Infinity);
  expect(engine.outstanding).toBe(0);
  return done;
}

describe("an engine", () => {
  test("a lone request takes what the formula says", () => {
    const [only] = served([{ arrivedMs: 0, inputTokens: 1_000, outputTokens: 2, model: 0 }]);
    const prefill = 15 + 1 + 1.2 * (0.0187 * 1_000 + 5.06e-7 * 1_000 ** 2);
    expect(only?.firstMs).toBeCloseTo(prefill, 6);
    expect(only?.endMs).toBeCloseTo(prefill + 1 + 1.2 * (5.66 + 0.0102 + 4.15e-5 * 1_001) + 2 * 0.046, 6);
  });

  test("has the times of the step-by-step model of the routing benchmark, within 5 %", () => {
    // Without shared blocks, and with prompts of which the KV cache holds many: the other model preempts where it does not.
    const requests = generateConversations(3, 600).filter(
      ({ promptTokens }, at) => at % 2 === 0 && promptTokens < 32_000,
    );
    const works = requests.map(({ atMs, promptTokens, outputTokens }) => ({
      arrivedMs: atMs,
      inputTokens: promptTokens,
      outputTokens,
      model: 0,
    }));
    const slow = { ttft: new Histogram(), rest: new Histogram() };
    const other = new FastEngine(costProfiles["8b-h100-tp1"]);
    for (const work of works) {
      let firstMs = 0;
      other.advance(work.arrivedMs);
      other.submit(
        {
          promptTokens: work.inputTokens,
          outputTokens: work.outputTokens,
          blocks: [],
          onStart: () => undefined,
          onFirstToken: (atMs) => {
            firstMs = atMs;
            slow.ttft.add(atMs - work.arrivedMs);
          },
          onEnd: (atMs) => slow.rest.add(atMs - firstMs),
        },
        work.arrivedMs,
      );
    }
    other.advance(1e9);
    const fast = { ttft: new Histogram(), rest: new Histogram() };
    for (const { work, firstMs, endMs } of served(works)) {
      fast.ttft.add(firstMs - work.arrivedMs);
      fast.rest.add(endMs - firstMs);
    }
    expect(fast.ttft.total).toBe(slow.ttft.total);
    for (const share of [0.5, 0.9, 0.95]) {
      for (const what of ["ttft", "rest"] as const) {
        const ratio = (fast[what].quantile(share) ?? 0) / (slow[what].quantile(share) ?? 1);
        expect(ratio, `${what} ${share}`).toBeGreaterThan(0.95);
        expect(ratio, `${what} ${share}`).toBeLessThan(1.05);
      }
    }
  });

  test("serves everyone, whatever comes; nobody before they came, nobody's answer before its first token", () => {
    const work = fc.record({
      gapMs: fc.integer({ min: 0, max: 2_000 }),
      inputTokens: fc.integer({ min: 1, max: 30_000 }),
      outputTokens: fc.integer({ min: 1, max: 600 }),
    });
    const small = { ...h100, kvTokens: 31_000, maxSequences: 3 };
    fc.assert(
      fc.property(fc.array(work, { minLength: 1, maxLength: 40 }), (gaps) => {
        let arrivedMs = 0;
        const works = gaps.map(({ gapMs, inputTokens, outputTokens }) => {
          arrivedMs += gapMs;
          return { arrivedMs, inputTokens, outputTokens, model: 0 };
        });
        const done = served(works, small);
        expect(done).toHaveLength(works.length);
        for (const {
          work: { arrivedMs: at },
          firstMs,
          endMs,
        } of done) {
          expect(firstMs).toBeGreaterThan(at + 15);
          expect(endMs).toBeGreaterThanOrEqual(firstMs);
        }
      }),
      { numRuns: 60 },
    );
  });

  test("how often it is asked to go on changes nothing", () => {
    const works = generateConversations(5, 60).map(({ atMs, promptTokens, outputTokens }) => ({
      arrivedMs: atMs,
      inputTokens: promptTokens,
      outputTokens,
      model: 0,
    }));
    const last = (looks: readonly number[]): number => {
      let endMs = 0;
      const engine = new Engine(
        [h100],
        { onEnd: (_, __, at) => (endMs = at), switchMs: () => 0, onSwitch: () => undefined },
        { atMs: 0, model: 0, cachedShare: 0 },
      );
      for (const work of works) engine.submit(work, work.arrivedMs);
      for (const look of looks) engine.advance(look);
      engine.advance(Infinity);
      return endMs;
    };
    const often = Array.from({ length: 5_000 }, (_, at) => at * 17.3);
    expect(last(often)).toBeCloseTo(last([]), 3);
  });
});

describe("the autoscaler", () => {
  const options = {
    min: 1,
    max: 100,
    targetRequests: 10,
    cooldownSeconds: 300,
    scaleDownSeconds: 300,
    floorAt: () => 0,
  };

  test("its pace is what the ScaledObjects say", async () => {
    const { manifests } = await renderKubernetes(await planOf("azure-prod"));
    const scaled = manifests.filter(({ kind }) => kind === "ScaledObject");
    expect(scaled.length).toBeGreaterThan(0);
    const { up, down } = behaviour;
    const pace = {
      scaleUp: {
        stabilizationWindowSeconds: 0,
        policies: [
          { type: "Percent", value: up.percent, periodSeconds: up.periodSeconds },
          { type: "Pods", value: up.pods, periodSeconds: up.periodSeconds },
        ],
      },
      scaleDown: {
        selectPolicy: "Max",
        policies: [
          { type: "Percent", value: down.percent, periodSeconds: down.periodSeconds },
          { type: "Pods", value: down.pods, periodSeconds: down.periodSeconds },
        ],
      },
    };
    for (const object of scaled) {
      expect(object).toMatchObject({
        spec: { advanced: { horizontalPodAutoscalerConfig: { behavior: pace } } },
      });
    }
  });

  test("up: doubles, or two more, each 30 s", () => {
    const scaler = new Scaler(options);
    let replicas = 1;
    const seen: number[] = [];
    for (let at = 15; at <= 150; at += 15) {
      replicas = scaler.desired(at, 10_000, replicas);
      seen.push(replicas);
    }
    expect(seen).toEqual([3, 3, 6, 6, 12, 12, 24, 24, 48, 48]);
  });

  test("within 10 % of the target it stays", () => {
    const scaler = new Scaler(options);
    expect(scaler.desired(15, 54, 5)).toBe(5);
    expect(scaler.desired(30, 56, 5)).toBe(6);
  });

  test("down: one a minute, and only once demand was low for the whole window", () => {
    const scaler = new Scaler(options);
    expect(scaler.desired(15, 100, 10)).toBe(10);
    let replicas = 10;
    const at: Record<number, number> = {};
    for (let now = 30; now <= 600; now += 15) {
      replicas = scaler.desired(now, 5, replicas);
      at[now] = replicas;
    }
    expect(at[315]).toBe(10);
    expect(at[330]).toBe(9);
    expect(at[375]).toBe(9);
    expect(at[390]).toBe(8);
  });

  test("to zero after the cooldown, and back at once", () => {
    const scaler = new Scaler({ ...options, min: 0 });
    expect(scaler.activated(0)).toBe(1);
    expect(scaler.desired(15, 3, 1)).toBe(1);
    expect(scaler.desired(300, 0, 1)).toBe(1);
    expect(scaler.desired(315, 0, 1)).toBe(0);
    expect(scaler.desired(330, 0, 0)).toBe(0);
    expect(scaler.activated(331)).toBe(1);
  });

  test("floors by the clock hold", () => {
    const schedule = [{ start: "0 8 * * 1-5", end: "30 18 * * 1-5", timezone: "UTC", replicas: 4 }];
    const { at, leftOut } = floors(schedule);
    const hour = 3_600;
    expect([7.9, 8, 18.4, 18.5, 24 + 9, 5 * 24 + 9, 7 * 24 + 9].map((hours) => at(hours * hour))).toEqual([
      0, 4, 4, 0, 4, 0, 4,
    ]);
    expect(leftOut).toEqual([]);
    const berlin = floors([{ start: "0 8 * * MON", end: "0 18 * * mon", timezone: "Europe/Berlin", replicas: 2 }]);
    expect([6.9, 7, 16.9, 17].map((hours) => berlin.at(hours * hour))).toEqual([0, 2, 2, 0]);
    expect(floors([{ start: "0 8 1 * *", end: "*oops * * * *", timezone: "UTC", replicas: 2 }]).leftOut).toHaveLength(
      1,
    );
    const scaler = new Scaler({ ...options, floorAt: () => 4 });
    expect(scaler.desired(15, 0, 1)).toBe(3);
  });
});

describe("nodes", () => {
  test("replicas share nodes, new ones start in the try-order, and the pool's maximum holds", async () => {
    const plan = await planOf("azure-prod");
    const large = plan.fleets.find(({ name }) => name === "large");
    const pools = plan.pools.filter(({ group }) => group === "h100");
    if (large === undefined) throw new Error("azure-prod has a fleet `large`");
    const group = new NodeGroup("h100", pools, {
      emptySeconds: 600,
      nodeSeconds: 300,
      withoutSpot: false,
      isUnlimited: false,
    });
    const places = Array.from({ length: 5 }, () => group.take(large, 0));
    expect(places.map((place) => place?.isNewNode)).toEqual([false, false, true, false, undefined]);
    expect(places.map((place) => place?.nodeReadyAt)).toEqual([0, 0, 300, 300, undefined]);
    group.release(large, 0, 3_600);
    group.release(large, 0, 3_600);
    group.advance(4_199);
    expect(group.nodeSeconds()[0]).toBe(2 * 4_199);
    group.advance(4_200);
    group.advance(7_200);
    expect(group.nodeSeconds()[0]).toBe(2 * 4_200 + 3_000);
    expect(group.peakNodes).toBe(2);
  });

  test("spot nodes only for fleets that may, and none when there is none", async () => {
    const plan = await planOf("azure-prod");
    const pools = plan.pools.filter(({ group }) => group === "single");
    const small = plan.fleets.find(({ name }) => name === "small");
    if (small === undefined) throw new Error("azure-prod has a fleet `small`");
    const capacityOf = (spot: boolean, withoutSpot: boolean): string | undefined => {
      const options = { emptySeconds: 600, nodeSeconds: 300, withoutSpot, isUnlimited: false };
      const place = new NodeGroup("single", pools, options).take({ ...small, spot }, 0);
      return pools[place?.variant ?? -1]?.capacity;
    };
    expect([capacityOf(true, false), capacityOf(false, false), capacityOf(true, true)]).toEqual([
      "spot",
      "on-demand",
      "on-demand",
    ]);
  });
});

test("quantiles of a histogram are right to 3 %", () => {
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0.01, max: 1_000, noNaN: true }), { minLength: 1 }), (values) => {
      const histogram = new Histogram();
      for (const value of values) histogram.add(value);
      const sorted = values.toSorted((one, other) => one - other);
      const exact = sorted[Math.ceil(0.9 * sorted.length) - 1] ?? 0;
      expect((histogram.quantile(0.9) ?? 0) / exact).toBeGreaterThan(0.999);
      expect((histogram.quantile(0.9) ?? 0) / exact).toBeLessThan(1.03);
    }),
  );
});
