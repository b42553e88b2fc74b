import { describe, expect, test } from "vitest";
import { fitOf } from "../../infra/plan/fit.ts";
import {
  kvBytesPerToken,
  kvGiBOfRequest,
  kvShare,
  weightsOf,
  weightsPerGpuGiB,
} from "../../infra/plan/model-memory.ts";
import { shapeNamed } from "../../infra/catalog/shapes.ts";
import { findSize, type GpuSize } from "../../infra/catalog/sizes.ts";
import { cloudEngine, type StackEngine } from "../../infra/stack/engines.ts";
import type { ModelShape } from "../../infra/stack/shape.ts";

function shape(name: string): ModelShape {
  const found = shapeNamed(name);
  if (found === undefined) throw new Error(`no shape ${name}`);
  return found;
}

function size(name: string): GpuSize {
  const found = findSize(name.startsWith("Standard") ? "azure" : "aws", name);
  if (found === undefined) throw new Error(`no size ${name}`);
  return found;
}

const vllm = (options: object = {}): StackEngine => cloudEngine.parse({ kind: "vllm", ...options });
const one = { tensorParallel: 1, pipelineParallel: 1 };

describe("KV cache of a token", () => {
  test.each([
    // Per layer 2 x KV heads x head size x 2 bytes: 8B, 70B and 405B as measured (128 and 320 KiB; 126 layers with 8 heads).
    ["llama-3.1-8b", 131072],
    ["llama-3.1-70b", 327680],
    ["llama-3.1-405b", 516096],
    ["qwen3-30b-a3b", 98304],
    // A latent of 576 numbers in place of 128 heads.
    ["deepseek-v3", 61 * 576 * 2],
  ])("%s: %i bytes", (name, bytes) => {
    expect(kvBytesPerToken(shape(name), 2)).toBe(bytes);
  });

  test("a sliding window keeps only its last tokens", () => {
    const gemma = shape("gemma-3-27b");
    const perLayer = 2 * 16 * 128 * 2;
    expect(kvGiBOfRequest(gemma, 32768, 2) * 2 ** 30).toBeCloseTo(perLayer * (10 * 32768 + 52 * 1024), -3);
    expect(kvGiBOfRequest(gemma, 512, 2) * 2 ** 30).toBeCloseTo(perLayer * 62 * 512, -3);
  });

  test.each([
    ["llama-3.1-70b", 4, 1, 1 / 4],
    ["llama-3.1-70b", 8, 1, 1 / 8],
    // More GPUs than KV heads: heads are copied.
    ["qwen3-30b-a3b", 8, 1, 1 / 4],
    // A latent is on every GPU.
    ["deepseek-v3", 8, 1, 1],
    // 80 layers over 3 stages: the fullest has 27.
    ["llama-3.1-70b", 2, 3, 27 / 80 / 2],
  ])("%s on %i x %i: each GPU holds %f of it", (...[name, tensorParallel, pipelineParallel, share]) => {
    expect(kvShare(shape(name), { tensorParallel, pipelineParallel })).toBeCloseTo(share, 10);
  });
});

describe("weights", () => {
  test.each([
    ["llama-3.1-8b", null, 14.96],
    ["llama-3.1-70b", null, 131.4],
    ["llama-3.1-8b", "fp8", 8.46],
    ["llama-3.1-70b-fp8", null, 67.7],
    // Its files are known, so their size counts.
    ["deepseek-v3", null, 641.3],
    ["gpt-oss-120b", null, 60.8],
  ] as const)("%s as %s: %f GiB", (name, quantized, gib) => {
    expect(weightsOf(shape(name), quantized).gib).toBeCloseTo(gib, 1);
  });

  test("stages share layers, not embeddings", () => {
    const weights = weightsOf(shape("llama-3.1-8b"), null);
    const whole = weightsPerGpuGiB(shape("llama-3.1-8b"), weights, one);
    const half = weightsPerGpuGiB(shape("llama-3.1-8b"), weights, { tensorParallel: 1, pipelineParallel: 2 });
    expect(whole).toBeCloseTo(weights.gib, 10);
    expect(half).toBeCloseTo(whole / 2, 10);
    const third = weightsPerGpuGiB(shape("llama-3.1-8b"), weights, { tensorParallel: 1, pipelineParallel: 3 });
    expect(third).toBeGreaterThan(whole / 3);
  });
});

describe("against what vLLM 0.24 reports on H100, at 90 % of the memory", () => {
  test.each([
    ["llama-3.1-8b", "p5.4xlarge", 1, 442_000],
    ["llama-3.1-70b", "p5.48xlarge", 4, 478_000],
    ["llama-3.1-70b", "p5.48xlarge", 8, 1_380_000],
  ])("%s on %s with %i GPUs: %i tokens within 5 %%", (...[name, node, tensorParallel, tokens]) => {
    const model = shape(name);
    const spread = { tensorParallel, pipelineParallel: 1 };
    const fit = fitOf({
      engine: vllm(),
      shape: model,
      spread,
      size: size(node),
      contextTokens: 8192,
      concurrency: 1,
      residents: 1,
    });
    const perToken = (kvBytesPerToken(model, 2) * kvShare(model, spread)) / 2 ** 30;
    expect(Math.abs(fit.kvRoomGiB / perToken / tokens - 1)).toBeLessThan(0.05);
  });
});

describe("a fit", () => {
  const question = {
    engine: vllm(),
    shape: shape("llama-3.1-8b"),
    spread: one,
    size: size("g6e.2xlarge"),
    contextTokens: 8192,
    concurrency: 16,
    residents: 1,
  };

  test("shows its arithmetic", () => {
    const { arithmetic, fits } = fitOf(question);
    expect(fits).toBe(true);
    expect(arithmetic).toBe(
      "1 x NVIDIA L40S: on each GPU 15.0 GiB of weights + 2.2 GiB of buffers + 16.0 GiB of KV cache " +
        "(16 x 8192 tokens) = 33.1 GiB of 40.2 GiB usable",
    );
  });

  test("FP8 for the KV cache doubles what fits", () => {
    const { concurrency } = fitOf(question);
    expect(fitOf({ ...question, engine: vllm({ kvCacheDtype: "fp8" }) }).concurrency).toBeGreaterThanOrEqual(
      2 * concurrency,
    );
  });

  test("weights that the engine quantises must fit whole first", () => {
    const large = { ...question, shape: shape("qwen3-32b"), engine: vllm({ quantization: "fp8" }), concurrency: 1 };
    const fit = fitOf(large);
    expect(fit.weightsGiB).toBeLessThan(40);
    expect(fit.fits).toBe(false);
    expect(fit.arithmetic).toContain("before the weights are quantised");
  });

  test("adapters, images and drafts take their part", () => {
    const plain = fitOf(question).overheadGiB;
    expect(
      fitOf({ ...question, engine: vllm({ lora: { maxLoras: 8, maxRank: 64 } }) }).overheadGiB - plain,
    ).toBeCloseTo(2.5, 1);
    expect(fitOf({ ...question, shape: { ...question.shape, vision: true } }).overheadGiB - plain).toBeCloseTo(2, 5);
    const draft = vllm({ speculative: { method: "eagle3", model: "x" } });
    expect(fitOf({ ...question, engine: draft }).overheadGiB - plain).toBeGreaterThan(0.5);
  });

  test("TensorRT-LLM takes a part of what the weights leave", () => {
    const engine = cloudEngine.parse({ kind: "trtllm", kvCacheFreeMemoryFraction: 0.5 });
    const fit = fitOf({ ...question, engine });
    expect(fit.kvRoomGiB).toBeCloseTo((fit.usableGiB - fit.weightsGiB - fit.overheadGiB) * 0.5, 10);
  });
});
