import { describe, expect, test } from "vitest";
import { z } from "zod";
import { charts } from "../../infra/catalog/add-ons.ts";
import { auxPrices } from "../../infra/catalog/aux-prices.ts";
import { isSold, priceOf, regionsSelling } from "../../infra/catalog/prices.ts";
import { checked } from "../../infra/catalog/read.ts";
import { postgresSizes, redisSizes, servicePrice, systemSizes } from "../../infra/catalog/services.ts";
import { familyOf, shapeNamed, shapeNameOf, shapeNames } from "../../infra/catalog/shapes.ts";
import { findSize, gpuSizes } from "../../infra/catalog/sizes.ts";
import throughput from "../../infra/catalog/throughput.json" with { type: "json" };
import { throughputOf } from "../../infra/catalog/throughput.ts";
import prices from "../../infra/catalog/prices.json" with { type: "json" };
import { modelShape } from "../../infra/stack/shape.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";

describe("sizes", () => {
  test.each([
    ["aws", "p5.48xlarge", { count: 8, memoryGiB: 80, computeCapability: "9.0" }, true],
    ["aws", "g6e.12xlarge", { count: 4, memoryGiB: 44.7, computeCapability: "8.9" }, false],
    ["azure", "Standard_ND96isr_H200_v5", { count: 8, memoryGiB: 141, computeCapability: "9.0" }, true],
    ["azure", "Standard_NC24ads_A100_v4", { count: 1, memoryGiB: 80, computeCapability: "8.0" }, false],
  ] as const)("%s %s", (...[cloud, name, gpu, nvlink]) => {
    expect(findSize(cloud, name)).toMatchObject({ gpu, nvlink });
  });

  test("each has a GPU and a CPU, and every price is of one that is there", () => {
    for (const size of gpuSizes) expect(size.gpu.count * size.vcpus).toBeGreaterThan(0);
    const names = new Set(gpuSizes.map(({ name }) => name));
    for (const { size } of prices.prices) expect(names).toContain(size);
  });

  test("a size is not found on the other cloud", () => {
    expect(findSize("azure", "p5.48xlarge")).toBeUndefined();
  });
});

describe("prices", () => {
  test.each([
    ["p5.48xlarge", "us-east-1", 55.04, "2026-07-20"],
    ["Standard_ND96isr_H100_v5", "eastus2", 98.32, "2026-06-18"],
    ["Standard_ND96isr_H100_v5", "swedencentral", 127.816, "2026-06-18"],
  ] as const)("%s in %s", (...[size, region, usdPerHour, asOf]) => {
    expect(priceOf({ size, region, capacity: "on-demand" })).toMatchObject({ usdPerHour, asOf });
  });

  test("an unknown price is null and says so, never zero", () => {
    const price = priceOf({ size: "p5.48xlarge", region: "eu-west-1", capacity: "on-demand" });
    expect(price).toMatchObject({ usdPerHour: null, source: expect.stringContaining("no on-demand price known") });
    for (const { usdPerHour } of prices.prices)
      for (const usd of Object.values(usdPerHour)) expect(usd).toBeGreaterThan(0);
  });

  test("where a size is sold is known on Azure and in one region of AWS", () => {
    expect(isSold("azure", "Standard_ND96isr_H200_v5", "eastus")).toBe("no");
    expect(isSold("azure", "Standard_ND96isr_H200_v5", "eastus2")).toBe("yes");
    expect(isSold("aws", "p5e.48xlarge", "us-east-1")).toBe("no");
    expect(isSold("aws", "p5.48xlarge", "eu-west-1")).toBe("unknown");
    expect(regionsSelling("p5en.48xlarge")).toContain("eu-north-1");
  });

  test("what stands beside the nodes has prices with a unit and a source", () => {
    expect(auxPrices.length).toBeGreaterThan(20);
    for (const price of auxPrices) expect(price.unit && price.source && price.asOf).toBeTruthy();
  });
});

describe("shapes", () => {
  test.each(shapeNames)("%s is a shape that a stack could spell out", (name) => {
    expect(modelShape.safeParse(shapeNamed(name)).error).toBeUndefined();
  });

  test.each([
    ["hf://meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"],
    ["hf://meta-llama/Llama-3.3-70B-Instruct@0123abc", "llama-3.1-70b"],
    ["hf://openai/gpt-oss-120b", "gpt-oss-120b"],
    ["az://account/models/Qwen3-8B/", "qwen3-8b"],
    ["hf://someone/Llama-3.1-8B-Instruct-abliterated", undefined],
  ])("%s is %s", (source, name) => {
    expect(shapeNameOf(source)).toBe(name);
  });

  test("no repository is claimed twice", () => {
    const named = shapeNames.map((name) => shapeNameOf(`hf://x/${name}`)).filter((name) => name !== undefined);
    expect(new Set(named).size).toBe(named.length);
  });
});

describe("throughput", () => {
  test("every row is of a shape and a GPU that are there", () => {
    const gpus = new Set(gpuSizes.map(({ gpu }) => gpu.model));
    const families = new Set(shapeNames.map(familyOf));
    for (const row of throughput.rows) {
      expect(families).toContain(row.shape);
      expect(gpus).toContain(row.gpu);
    }
  });

  test("tuned figures are derated, and the derating is told", () => {
    const found = throughputOf({ shape: "llama-3.1-70b", weights: "fp8", gpu: "NVIDIA H100 80GB SXM5", gpus: 4 });
    expect(found?.outputTokensPerSecond).toBe(Math.round(2209 * 4 * 0.55));
    expect(found?.source).toContain("0.55");
    expect(throughputOf({ shape: "llama-3.1-70b", weights: "bf16", gpu: "NVIDIA H100 80GB SXM5", gpus: 4 })).toBeNull();
  });
});

test("services grow from size to size, and what has no price is unknown", () => {
  for (const cloud of ["azure", "aws"] as const) {
    for (const sizes of [systemSizes[cloud], redisSizes[cloud]]) {
      const memory = sizes.map(({ memoryGiB }) => memoryGiB);
      expect(memory).toEqual(memory.toSorted((a, b) => a - b));
    }
    expect(servicePrice(postgresSizes[cloud].prod, "nowhere", 2).usdPerHour).toBeNull();
  }
  expect(
    servicePrice({ name: "x", vcpus: 1, memoryGiB: 1, usdPerHour: { r: 2 }, source: "s", asOf: "d" }, "r", 3),
  ).toEqual({
    usdPerHour: 6,
    source: "s",
    asOf: "d",
  });
});

test("every chart is pinned", () => {
  for (const { version, repository } of Object.values(charts)) {
    expect(version).toMatch(/^\d+\.\d+\.\d+$/);
    expect(repository).toMatch(/^(https|oci):\/\//);
  }
});

test("a broken entry of the catalogue is named", () => {
  const schema = z.strictObject({ sizes: z.array(z.strictObject({ vcpus: z.int() })) });
  expect(() => checked("sizes.json", schema, { sizes: [{ vcpus: 1 }, { vcpus: "two" }] })).toThrow(PenstockError);
  expect(() => checked("sizes.json", schema, { sizes: [{ vcpus: 1 }, { vcpus: "two" }] })).toThrow(
    /infra\/catalog\/sizes\.json: sizes\[1\]\.vcpus: /,
  );
});
