import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { priceOf } from "../../infra/catalog/prices.ts";
import { shapeNames, shapeNamed } from "../../infra/catalog/shapes.ts";
import { gpuSizes } from "../../infra/catalog/sizes.ts";
import type { CloudPlan } from "../../infra/plan/plan.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { awsStack, azureStack, model, planned, type WrittenStack } from "../support/stacks.ts";

const generating = shapeNames.filter((name) => shapeNamed(name)?.task === "generate");
const sizes = gpuSizes.filter(({ unusable, preview }) => unusable === undefined && !preview);

interface Wish {
  readonly shape: string;
  readonly contextTokens: number;
  readonly concurrency: number;
  readonly replicas: number;
}

const wishes = fc.record({
  shape: fc.constantFrom(...generating),
  contextTokens: fc.integer({ min: 256, max: 8192 }),
  concurrency: fc.integer({ min: 1, max: 64 }),
  replicas: fc.integer({ min: 1, max: 8 }),
});

function stackFor(
  { shape, contextTokens, concurrency, replicas }: Wish,
  place: WrittenStack,
  base: WrittenStack,
): WrittenStack {
  return {
    ...base,
    models: [model("m", shape)],
    pools: [],
    fleets: [
      {
        name: "f",
        engine: { kind: "vllm" },
        models: ["m"],
        replicas: { min: 1, max: replicas },
        contextTokens,
        concurrency,
        ...place,
      },
    ],
  };
}

/** The plan, or null where the planner refuses. */
function planOrNull(stack: WrittenStack): CloudPlan | null {
  try {
    return planned(stack);
  } catch (error) {
    if (error instanceof PenstockError && error.code === "invalid_config") return null;
    throw error;
  }
}

/** What the plan costs at its maximum. */
function maximumCost({ pools, region }: CloudPlan): number {
  const [pool] = pools;
  if (pool === undefined) return 0;
  const price = priceOf({ size: pool.size, region, capacity: "on-demand" }).usdPerHour;
  return (price ?? Number.NaN) * pool.groupNodes.max;
}

describe.each([
  ["aws", awsStack],
  ["azure", azureStack],
] as const)("on %s", (cloud, base) => {
  const named = sizes.filter((size) => size.cloud === cloud).map(({ name }) => name);

  test("a plan never exceeds a GPU's memory, and sizes divide", () => {
    let plans = 0;
    fc.assert(
      fc.property(wishes, fc.constantFrom(...named), (wish, size) => {
        const stack = stackFor(wish, { pool: "p" }, base);
        const plan = planOrNull({ ...stack, pools: [{ name: "p", sizes: [size], maxNodes: 40 }] });
        const [fleet] = plan?.fleets ?? [];
        const [pool] = plan?.pools ?? [];
        if (fleet === undefined || pool === undefined || fleet.engine.kind !== "vllm") return;
        plans++;
        const { weightsGiB, overheadGiB, kvCacheGiB, usableGiB } = fleet.memory;
        expect(weightsGiB + overheadGiB + kvCacheGiB).toBeLessThanOrEqual(usableGiB + 0.02);
        expect(usableGiB).toBeLessThanOrEqual(pool.gpu.memoryGiB);
        expect(fleet.concurrency).toBeGreaterThanOrEqual(wish.concurrency);
        const { tensorParallel, pipelineParallel, nodes } = fleet.engine;
        const shape = shapeNamed(wish.shape);
        expect((shape?.attentionHeads ?? 1) % tensorParallel).toBe(0);
        expect(tensorParallel).toBeLessThanOrEqual(pool.gpu.count);
        expect(tensorParallel <= 2 || pool.gpu.nvlink).toBe(true);
        expect(pipelineParallel).toBeLessThanOrEqual(shape?.layers ?? 0);
        expect(fleet.gpusPerNode * nodes).toBe(tensorParallel * pipelineParallel);
        expect(fleet.gpusPerNode % tensorParallel).toBe(0);
        expect(fleet.gpusPerNode).toBeLessThanOrEqual(pool.gpu.count);
      }),
      { numRuns: 300 },
    );
    expect(plans).toBeGreaterThan(30);
  });

  test("pods of a node fit on it", () => {
    fc.assert(
      fc.property(wishes, fc.constantFrom(...named), (wish, size) => {
        const stack = stackFor(wish, { pool: "p" }, base);
        const plan = planOrNull({ ...stack, pools: [{ name: "p", sizes: [size], maxNodes: 40 }] });
        const [fleet] = plan?.fleets ?? [];
        const [pool] = plan?.pools ?? [];
        if (fleet === undefined || pool === undefined) return;
        const pods = Math.max(1, Math.floor(fleet.replicasPerNode));
        expect(pods * fleet.gpusPerNode).toBeLessThanOrEqual(pool.gpu.count);
        expect(pods * fleet.pod.cpuMillis).toBeLessThanOrEqual(pool.node.allocatableCpuMillis);
        expect(pods * fleet.pod.memoryGiB * 1024).toBeLessThanOrEqual(pool.node.allocatableMemoryMiB);
        expect(pods * fleet.pod.cacheGiB).toBeLessThanOrEqual(pool.node.nvmeGiB);
        expect(fleet.pod.sharedMemoryGiB).toBeLessThanOrEqual(fleet.pod.memoryGiB);
      }),
      { numRuns: 200 },
    );
  });

  test("cost never rises when demand falls", () => {
    let compared = 0;
    fc.assert(
      fc.property(
        wishes,
        fc.constantFrom("contextTokens", "concurrency", "replicas"),
        fc.double({ min: 0.1, max: 1, noNaN: true }),
        (wish, key, part) => {
          const less = { ...wish, [key]: Math.max(key === "contextTokens" ? 256 : 1, Math.floor(wish[key] * part)) };
          const [more, fewer] = [wish, less].map((each) => planOrNull(stackFor(each, { gpu: "auto" }, base)));
          if (more === null || more === undefined) return;
          compared++;
          // What fits with more fits with less, and costs no more.
          expect(fewer === null || fewer === undefined ? Infinity : maximumCost(fewer)).toBeLessThanOrEqual(
            maximumCost(more) + 1e-9,
          );
        },
      ),
      { numRuns: 60 },
    );
    expect(compared).toBeGreaterThan(20);
  });

  test("the same input gives the same plan, whatever the order of keys", () => {
    fc.assert(
      fc.property(wishes, (wish) => {
        const stack = stackFor(wish, { gpu: "auto" }, base);
        const turned = Object.fromEntries(Object.entries(stack).toReversed());
        expect(JSON.stringify(planOrNull(turned))).toBe(JSON.stringify(planOrNull(stack)));
      }),
      { numRuns: 15 },
    );
  });
});
