/**
 * Time constants of a model on the GPUs of one replica, in ms. n new tokens, c tokens that are in the cache already, B
 * decoding sequences, S the sum of their contexts:
 * `prefill = p1*n + p2*((c+n)^2 - c^2)`, `step = ovh + factor*(max(w0, prefill) + b*B + k*S)`.
 */
export interface EngineConstants {
  readonly w0: number;
  readonly b: number;
  readonly k: number;
  readonly p1: number;
  readonly p2: number;
}

/** A replica's engine with one model. */
export interface EngineModel extends EngineConstants {
  /** Tokens that the KV cache holds. */
  readonly kvTokens: number;
  /** Sequences that run at once. */
  readonly maxSequences: number;
  /** New tokens of one step. */
  readonly chunkTokens: number;
}

/** What the constants leave out: factor and ms of each step, ms of each request in front of the engine, ms per output token (BLIS). */
export const overhead = { factor: 1.2, stepMs: 1, requestMs: 15, outputTokenMs: 0.046 } as const;

interface Calibrated extends EngineConstants {
  readonly gpu: string;
  readonly gpus: number;
}

/**
 * Composed from aiconfigurator's measured kernels: vLLM 0.24 on H100, 0.14 on A100, BF16, all-reduce included. By the
 * catalogue's name of the shape.
 */
export const calibrated: Readonly<Record<"llama-3.1-8b" | "llama-3.1-70b", readonly Calibrated[]>> = {
  "llama-3.1-8b": [
    { gpu: "NVIDIA H100 80GB SXM5", gpus: 1, w0: 5.66, b: 0.0102, k: 4.15e-5, p1: 0.0187, p2: 5.06e-7 },
    { gpu: "NVIDIA A100 80GB SXM4", gpus: 1, w0: 11.2, b: 0.0211, k: 7.8e-5, p1: 0.0566, p2: 1.55e-6 },
  ],
  "llama-3.1-70b": [
    { gpu: "NVIDIA H100 80GB SXM5", gpus: 4, w0: 15.25, b: 0.0317, k: 2.56e-5, p1: 0.0628, p2: 3.92e-7 },
    { gpu: "NVIDIA H100 80GB SXM5", gpus: 8, w0: 9.04, b: 0.0227, k: 1.29e-5, p1: 0.0385, p2: 1.34e-7 },
    { gpu: "NVIDIA A100 80GB SXM4", gpus: 4, w0: 27.9, b: 0.0703, k: 6.35e-5, p1: 0.1432, p2: 2.04e-6 },
    { gpu: "NVIDIA A100 80GB SXM4", gpus: 8, w0: 15.9, b: 0.0654, k: 2.61e-5, p1: 0.0914, p2: 6.9e-7 },
  ],
};

/** ms of `tokens` new tokens behind `cached` ones. */
export function prefillMs(model: EngineConstants, tokens: number, cached: number): number {
  return model.p1 * tokens + model.p2 * ((cached + tokens) ** 2 - cached ** 2);
}

/** ms of a step with that much prefill, `decodes` sequences and the sum of their contexts. */
export function stepMs(
  model: EngineConstants,
  work: { readonly prefillMs: number; readonly decodes: number; readonly contextTokens: number },
): number {
  const floor = Math.max(model.w0, work.prefillMs);
  return overhead.stepMs + overhead.factor * (floor + model.b * work.decodes + model.k * work.contextTokens);
}
