import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { engineSpec } from "../../runtime/contracts/engine.ts";
import { engineOf } from "../../runtime/engines/index.ts";
import { kinds, launches } from "./specs.ts";

const vllm = { kind: "vllm" } as const;
const ngram = { method: "ngram" } as const;

/** What cannot work, and what a refusal of it must say. */
const refused: readonly (readonly [Record<string, unknown>, RegExp])[] = [
  [{ ...vllm, tensorParallel: 3, nodes: 2 }, /3 GPUs, which 2 nodes cannot share/],
  [{ ...vllm, nodes: 2 }, /1 GPUs, which 2 nodes/],
  [{ ...vllm, quantization: "bitsandbytes", loadFormat: "runai_streamer" }, /set loadFormat to auto/],
  [{ ...vllm, quantization: "bitsandbytes", loadFormat: "safetensors" }, /set loadFormat to auto/],
  [{ ...vllm, loadFormat: "bitsandbytes" }, /needs quantization bitsandbytes/],
  [{ ...vllm, loadFormat: "bitsandbytes", quantization: "awq" }, /needs quantization bitsandbytes/],
  [{ ...vllm, chunkedPrefill: false, maxNumBatchedTokens: 2048, maxModelLen: 4096 }, /below maxModelLen 4096/],
  [{ ...vllm, maxNumBatchedTokens: 64, maxNumSeqs: 128 }, /below maxNumSeqs 128/],
  [{ ...vllm, lora: { maxLoras: 4, maxCpuLoras: 2 } }, /maxCpuLoras 2 is below/],
  [{ ...vllm, task: "embed", speculative: ngram }, /leave speculative out/],
  [{ ...vllm, lora: {}, speculative: ngram }, /LoRA and speculative decoding/],
  [{ ...vllm, pipelineParallel: 2, speculative: ngram }, /pipelineParallel and speculative/],
  [{ ...vllm, speculative: { method: "draft_model" } }, /draft_model needs speculative.model/],
  [{ ...vllm, speculative: { method: "eagle" } }, /eagle needs speculative.model/],
  [{ ...vllm, speculative: { method: "eagle3" } }, /eagle3 needs speculative.model/],
  [{ kind: "triton", backend: "tensorrtllm", maxModelLen: 4096 }, /built into a TensorRT engine/],
  [{ kind: "triton", backend: "tensorrtllm", task: "embed" }, /set backend to vllm/],
  [{ kind: "trtllm", task: "embed" }, /no \/v1\/embeddings/],
  [{ kind: "trtllm", backend: "tensorrt", kvCacheDtype: "fp8" }, /use backend pytorch/],
  [{ kind: "llamacpp", flashAttention: "off", kvCacheType: "q8_0" }, /needs flash attention/],
  [{ kind: "llamacpp", gpuLayers: 0, gpuCount: 2 }, /no layers to split/],
  [{ kind: "llamacpp", gpuLayers: 0, unifiedMemory: true }, /leave unifiedMemory out/],
];

/** Next to those, what does work. */
const accepted: readonly Record<string, unknown>[] = [
  ...kinds.map((kind) => ({ kind })),
  { ...vllm, tensorParallel: 8, pipelineParallel: 2, nodes: 2 },
  { ...vllm, quantization: "bitsandbytes" },
  { ...vllm, quantization: "bitsandbytes", loadFormat: "bitsandbytes" },
  { ...vllm, quantization: "fp8", loadFormat: "runai_streamer" },
  { ...vllm, chunkedPrefill: true, maxNumBatchedTokens: 2048, maxModelLen: 4096 },
  { ...vllm, chunkedPrefill: false, maxNumBatchedTokens: 4096, maxModelLen: 4096 },
  { ...vllm, lora: { maxLoras: 4, maxCpuLoras: 4 } },
  { ...vllm, lora: {}, task: "embed" },
  { ...vllm, speculative: { method: "mtp" } },
  { ...vllm, speculative: { method: "eagle3", model: "/models/eagle3" }, tensorParallel: 8 },
  { ...vllm, sleepLevel: 2, pipelineParallel: 2 },
  { kind: "triton", backend: "tensorrtllm", tensorParallel: 2 },
  { kind: "triton", task: "embed", maxModelLen: 512 },
  { kind: "trtllm", backend: "tensorrt", pipelineParallel: 2 },
  { kind: "trtllm", kvCacheDtype: "fp8" },
  { kind: "llamacpp", flashAttention: "auto", kvCacheType: "q4_0", gpuCount: 2 },
  { kind: "llamacpp", gpuLayers: 0, task: "embed" },
];

describe("refusals", () => {
  test.each(refused)("%j", (given, why) => {
    const spec = engineSpec.parse(given);
    expect(engineOf(spec).refusals(spec)).toEqual([expect.stringMatching(why)]);
  });

  test.each(accepted)("not %j", (given) => {
    const spec = engineSpec.parse(given);
    expect(engineOf(spec).refusals(spec)).toEqual([]);
  });

  test.each(kinds)("%s gives each as one sentence that names a remedy", (kind) => {
    fc.assert(
      fc.property(launches(kind), ({ spec }) => {
        for (const refusal of engineOf(spec).refusals(spec)) expect(refusal).toMatch(/^[A-Za-z].*: [^:]+\.$/s);
      }),
    );
  });
});
