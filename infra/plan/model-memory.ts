import type { ModelShape, WeightType } from "../stack/shape.ts";

const gib = 2 ** 30;

/** Bytes of a weight; narrow formats with their scales (a scale of 8 bits for 16 numbers, or of 16 bits for 128). */
const weightBytes = {
  fp32: 4,
  bf16: 2,
  fp16: 2,
  fp8: 1,
  int8: 1,
  int4: 0.5625,
  fp4: 0.5625,
  mxfp4: 0.5625,
} as const satisfies Record<WeightType, number>;

/** What weights take and how they are divided. */
export interface Weights {
  /** As they compute: after quantisation by the engine. */
  readonly type: WeightType;
  readonly gib: number;
  /** Of the files. */
  readonly fileGiB: number;
  /** Of them the largest stage's embeddings, which pipeline stages do not divide. */
  readonly embeddingGiB: number;
}

/**
 * Size of a model's weights: that of its files where it is known and the engine leaves them as they are, else parameters
 * times width. Embeddings stay at 16 bits when the rest is narrower.
 */
export function weightsOf(shape: ModelShape, quantized: WeightType | null): Weights {
  const fileGiB = shape.weightsGiB ?? computed(shape, shape.weights);
  const type = quantized ?? shape.weights;
  const size = quantized === null || quantized === shape.weights ? fileGiB : Math.min(fileGiB, computed(shape, type));
  const embeddingGiB = Math.min(size, (2 * embeddingParameters(shape) * embeddingBytes(type)) / gib);
  return { type, gib: size, fileGiB, embeddingGiB };
}

function computed(shape: ModelShape, type: WeightType): number {
  const parameters = shape.parametersB * 1e9;
  const embeddings = Math.min(parameters, 2 * embeddingParameters(shape));
  return ((parameters - embeddings) * weightBytes[type] + embeddings * embeddingBytes(type)) / gib;
}

function embeddingParameters(shape: ModelShape): number {
  return shape.vocabulary * shape.hiddenSize;
}

function embeddingBytes(type: WeightType): number {
  return Math.max(2, weightBytes[type]);
}

/** Bytes of the KV cache for a token in one layer, on all GPUs together. */
function kvBytesPerLayer(shape: ModelShape, width: number): number {
  return (shape.latentKvSize ?? 2 * shape.kvHeads * shape.headSize) * width;
}

/** Bytes of the KV cache for a token, over all layers, while no sliding window is full. `width`: bytes of a number. */
export function kvBytesPerToken(shape: ModelShape, width: number): number {
  return shape.layers * kvBytesPerLayer(shape, width);
}

/** GiB of the KV cache of one request of that length: layers with a sliding window keep only its last tokens. */
export function kvGiBOfRequest(shape: ModelShape, tokens: number, width: number): number {
  const sliding = Math.min(shape.layers, shape.slidingWindow?.layers ?? 0);
  const kept = Math.min(tokens, shape.slidingWindow?.tokens ?? tokens);
  return (kvBytesPerLayer(shape, width) * ((shape.layers - sliding) * tokens + sliding * kept)) / gib;
}

/** How a model is spread over GPUs. */
export interface Spread {
  readonly tensorParallel: number;
  readonly pipelineParallel: number;
}

/** Part of the KV cache on each GPU: heads are divided, and copied where there are fewer of them; a latent is copied. */
export function kvShare(shape: ModelShape, { tensorParallel, pipelineParallel }: Spread): number {
  const heads = shape.latentKvSize === undefined ? Math.min(tensorParallel, shape.kvHeads) : 1;
  return stageShare(shape, pipelineParallel) / heads;
}

/** GiB of the weights on the fullest GPU: layers are divided into stages as evenly as can be, embeddings stay whole. */
export function weightsPerGpuGiB(shape: ModelShape, weights: Weights, spread: Spread): number {
  const layersGiB = weights.gib - weights.embeddingGiB;
  // One stage holds both the input's and the output's embeddings; of several, the fullest holds one of them.
  const embeddings = spread.pipelineParallel === 1 ? weights.embeddingGiB : weights.embeddingGiB / 2;
  return (layersGiB * stageShare(shape, spread.pipelineParallel) + embeddings) / spread.tensorParallel;
}

function stageShare(shape: ModelShape, pipelineParallel: number): number {
  return Math.ceil(shape.layers / pipelineParallel) / shape.layers;
}
