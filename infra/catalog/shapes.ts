import type { ModelShape } from "../stack/shape.ts";

/** A model's shape as its `config.json` has it; defaults are filled in by `shapeNamed`. */
type ShapeEntry = Omit<ModelShape, "weights" | "vision" | "task"> & Partial<ModelShape>;

interface CatalogueEntry {
  readonly shape: ShapeEntry;
  /** Hub repositories of that shape, without their organisation. */
  readonly repositories: readonly string[];
  /** Name under which throughput was published, where it is not the entry's own. */
  readonly family?: string;
}

const llama8b = {
  parametersB: 8.03,
  layers: 32,
  attentionHeads: 32,
  kvHeads: 8,
  headSize: 128,
  hiddenSize: 4096,
  vocabulary: 128256,
  contextTokens: 131072,
} satisfies ShapeEntry;

const llama70b = { ...llama8b, parametersB: 70.55, layers: 80, attentionHeads: 64, hiddenSize: 8192 };

const qwen3 = {
  ...llama8b,
  parametersB: 8.19,
  layers: 36,
  vocabulary: 151936,
  contextTokens: 40960,
} satisfies ShapeEntry;

const gptOss = {
  layers: 24,
  attentionHeads: 64,
  kvHeads: 8,
  headSize: 64,
  hiddenSize: 2880,
  vocabulary: 201088,
  contextTokens: 131072,
  weights: "mxfp4",
} as const;

/** Common models, each from its own `config.json` and the index of its weights on the hub. */
const entries = {
  "llama-3.1-8b": {
    shape: llama8b,
    repositories: ["Llama-3.1-8B-Instruct", "Llama-3.1-8B", "Meta-Llama-3.1-8B-Instruct"],
  },
  "llama-3.1-8b-fp8": {
    shape: { ...llama8b, weights: "fp8" },
    repositories: ["Llama-3.1-8B-Instruct-FP8", "Meta-Llama-3.1-8B-Instruct-FP8"],
    family: "llama-3.1-8b",
  },
  "llama-3.1-70b": { shape: llama70b, repositories: ["Llama-3.3-70B-Instruct", "Llama-3.1-70B-Instruct"] },
  "llama-3.1-70b-fp8": {
    shape: { ...llama70b, weights: "fp8" },
    repositories: ["Llama-3.3-70B-Instruct-FP8-dynamic", "Llama-3.3-70B-Instruct-FP8"],
    family: "llama-3.1-70b",
  },
  "llama-3.1-405b": {
    shape: { ...llama8b, parametersB: 405.85, layers: 126, attentionHeads: 128, hiddenSize: 16384 },
    repositories: ["Llama-3.1-405B-Instruct"],
  },
  "llama-3.1-405b-fp8": {
    shape: { ...llama8b, parametersB: 405.85, layers: 126, attentionHeads: 128, hiddenSize: 16384, weights: "fp8" },
    repositories: ["Llama-3.1-405B-Instruct-FP8"],
    family: "llama-3.1-405b",
  },
  "llama-3.2-3b": {
    shape: { ...llama8b, parametersB: 3.21, layers: 28, attentionHeads: 24, hiddenSize: 3072 },
    repositories: ["Llama-3.2-3B-Instruct"],
  },
  "llama-3.2-11b-vision": {
    shape: { ...llama8b, parametersB: 10.67, layers: 40, vision: true },
    repositories: ["Llama-3.2-11B-Vision-Instruct"],
  },
  "qwen2.5-7b": {
    shape: {
      ...llama8b,
      parametersB: 7.62,
      layers: 28,
      attentionHeads: 28,
      kvHeads: 4,
      hiddenSize: 3584,
      vocabulary: 152064,
      contextTokens: 32768,
    },
    repositories: ["Qwen2.5-7B-Instruct", "Qwen2.5-Coder-7B-Instruct"],
  },
  "qwen2.5-72b": {
    shape: { ...llama70b, parametersB: 72.71, vocabulary: 152064, contextTokens: 32768 },
    repositories: ["Qwen2.5-72B-Instruct"],
  },
  "qwen2.5-vl-7b": {
    shape: {
      ...llama8b,
      parametersB: 8.29,
      layers: 28,
      attentionHeads: 28,
      kvHeads: 4,
      hiddenSize: 3584,
      vocabulary: 152064,
      contextTokens: 128000,
      vision: true,
    },
    repositories: ["Qwen2.5-VL-7B-Instruct"],
  },
  "qwen3-8b": { shape: qwen3, repositories: ["Qwen3-8B"] },
  "qwen3-32b": {
    shape: { ...qwen3, parametersB: 32.76, layers: 64, attentionHeads: 64, hiddenSize: 5120 },
    repositories: ["Qwen3-32B"],
  },
  "qwen3-30b-a3b": {
    shape: { ...qwen3, parametersB: 30.53, activeParametersB: 3.3, layers: 48, kvHeads: 4, hiddenSize: 2048 },
    repositories: ["Qwen3-30B-A3B"],
  },
  "qwen3-235b-a22b": {
    shape: { ...qwen3, parametersB: 235.09, activeParametersB: 22, layers: 94, attentionHeads: 64, kvHeads: 4 },
    repositories: ["Qwen3-235B-A22B"],
  },
  "qwen3-embedding-0.6b": {
    shape: {
      ...qwen3,
      parametersB: 0.6,
      layers: 28,
      attentionHeads: 16,
      hiddenSize: 1024,
      vocabulary: 151669,
      contextTokens: 32768,
      task: "embed",
    },
    repositories: ["Qwen3-Embedding-0.6B"],
  },
  "mistral-7b": {
    shape: { ...llama8b, parametersB: 7.25, vocabulary: 32768, contextTokens: 32768 },
    repositories: ["Mistral-7B-Instruct-v0.3"],
  },
  "mixtral-8x7b": {
    shape: { ...llama8b, parametersB: 46.7, activeParametersB: 12.9, vocabulary: 32000, contextTokens: 32768 },
    repositories: ["Mixtral-8x7B-Instruct-v0.1"],
  },
  "gemma-2-9b": {
    shape: {
      parametersB: 9.24,
      layers: 42,
      attentionHeads: 16,
      kvHeads: 8,
      headSize: 256,
      hiddenSize: 3584,
      vocabulary: 256000,
      contextTokens: 8192,
      slidingWindow: { tokens: 4096, layers: 21 },
    },
    repositories: ["gemma-2-9b-it"],
  },
  "gemma-3-27b": {
    shape: {
      parametersB: 27.43,
      layers: 62,
      attentionHeads: 32,
      kvHeads: 16,
      headSize: 128,
      hiddenSize: 5376,
      vocabulary: 262208,
      contextTokens: 131072,
      slidingWindow: { tokens: 1024, layers: 52 },
      vision: true,
    },
    repositories: ["gemma-3-27b-it"],
  },
  "deepseek-v3": {
    shape: {
      parametersB: 671.03,
      activeParametersB: 37,
      layers: 61,
      attentionHeads: 128,
      kvHeads: 128,
      headSize: 128,
      hiddenSize: 7168,
      vocabulary: 129280,
      contextTokens: 163840,
      weights: "fp8",
      weightsGiB: 641.3,
      latentKvSize: 576,
    },
    repositories: ["DeepSeek-V3", "DeepSeek-V3-0324", "DeepSeek-R1", "DeepSeek-R1-0528"],
  },
  "gpt-oss-20b": {
    shape: {
      ...gptOss,
      parametersB: 20.91,
      activeParametersB: 3.6,
      weightsGiB: 12.8,
      slidingWindow: { tokens: 128, layers: 12 },
    },
    repositories: ["gpt-oss-20b"],
  },
  "gpt-oss-120b": {
    shape: {
      ...gptOss,
      parametersB: 116.83,
      activeParametersB: 5.1,
      layers: 36,
      weightsGiB: 60.8,
      slidingWindow: { tokens: 128, layers: 18 },
    },
    repositories: ["gpt-oss-120b"],
  },
  "phi-4": {
    shape: {
      ...llama8b,
      parametersB: 14.66,
      layers: 40,
      attentionHeads: 40,
      kvHeads: 10,
      hiddenSize: 5120,
      vocabulary: 100352,
      contextTokens: 16384,
    },
    repositories: ["phi-4"],
  },
  "phi-4-mini": {
    shape: { ...llama8b, parametersB: 3.84, attentionHeads: 24, hiddenSize: 3072, vocabulary: 200064 },
    repositories: ["Phi-4-mini-instruct"],
  },
  "bge-m3": {
    shape: {
      parametersB: 0.568,
      layers: 24,
      attentionHeads: 16,
      kvHeads: 16,
      headSize: 64,
      hiddenSize: 1024,
      vocabulary: 250002,
      contextTokens: 8192,
      weights: "fp32",
      task: "embed",
    },
    repositories: ["bge-m3"],
  },
} as const satisfies Record<string, CatalogueEntry>;

const catalogue: Readonly<Record<string, CatalogueEntry>> = entries;

/** Names of all shapes in the catalogue. */
export const shapeNames: readonly string[] = Object.keys(entries);

/** A shape of the catalogue; undefined for an unknown name. */
export function shapeNamed(name: string): ModelShape | undefined {
  const shape = catalogue[name]?.shape;
  return shape === undefined ? undefined : { weights: "bf16", vision: false, task: "generate", ...shape };
}

/** The catalogue's name for the model of a source such as `hf://org/repo@revision`; undefined when it knows none. */
export function shapeNameOf(source: string): string | undefined {
  const parts = new Set(
    source
      .replace(/@[^/]*$/, "")
      .toLowerCase()
      .split("/"),
  );
  return shapeNames.find((name) =>
    catalogue[name]?.repositories.some((repository) => parts.has(repository.toLowerCase())),
  );
}

/** Name under which throughput of the shape was published. */
export function familyOf(name: string): string {
  return catalogue[name]?.family ?? name;
}
