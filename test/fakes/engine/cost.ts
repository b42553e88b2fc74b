/**
 * Time constants of a model on a GPU, in ms. n new tokens, c tokens that are in the cache already, B decoding sequences,
 * S the sum of their contexts:
 * `prefill = p1*n + p2*((c+n)^2 - c^2)`, `decode = w0 + b*B + k*S`.
 */
export interface CostProfile {
  readonly w0: number;
  readonly b: number;
  readonly k: number;
  readonly p1: number;
  readonly p2: number;
  /** Tokens that fit in the KV cache at a GPU memory utilisation of 0.9. */
  readonly kvTokens: number;
  /** Size of the weights in BF16. */
  readonly weightsBytes: number;
  /** Memory of all GPUs together. */
  readonly gpuMemoryBytes: number;
}

const gib = 2 ** 30;
/** Llama-3.1-8B and Llama-3.x-70B in BF16, on GPUs of 80 GB. */
const on = {
  one: { weightsBytes: 16.06e9, gpuMemoryBytes: 80 * gib },
  four: { weightsBytes: 141.1e9, gpuMemoryBytes: 320 * gib },
  eight: { weightsBytes: 141.1e9, gpuMemoryBytes: 640 * gib },
};

/** Composed from aiconfigurator's measured kernels (vLLM 0.24 on H100, 0.14 on A100, BF16, all-reduce included). */
export const costProfiles = {
  "8b-h100-tp1": { w0: 5.66, b: 0.0102, k: 4.15e-5, p1: 0.0187, p2: 5.06e-7, kvTokens: 442_000, ...on.one },
  "8b-a100-tp1": { w0: 11.2, b: 0.0211, k: 7.8e-5, p1: 0.0566, p2: 1.55e-6, kvTokens: 442_000, ...on.one },
  "70b-h100-tp4": { w0: 15.25, b: 0.0317, k: 2.56e-5, p1: 0.0628, p2: 3.92e-7, kvTokens: 478_000, ...on.four },
  "70b-h100-tp8": { w0: 9.04, b: 0.0227, k: 1.29e-5, p1: 0.0385, p2: 1.34e-7, kvTokens: 1_380_000, ...on.eight },
  "70b-a100-tp4": { w0: 27.9, b: 0.0703, k: 6.35e-5, p1: 0.1432, p2: 2.04e-6, kvTokens: 472_000, ...on.four },
  "70b-a100-tp8": { w0: 15.9, b: 0.0654, k: 2.61e-5, p1: 0.0914, p2: 6.9e-7, kvTokens: 1_380_000, ...on.eight },
} as const satisfies Record<string, CostProfile>;

export type ProfileName = keyof typeof costProfiles;
/** The names of all profiles, for a message or a schema. */
export const profileNames = Object.keys(costProfiles) as [ProfileName, ...ProfileName[]]; // the keys of a constant table

/** What the formula leaves out: factor and ms of each step, ms of each request in front (BLIS), ms per output token. */
export const overhead = { factor: 1.2, stepMs: 1, requestMs: 15, outputTokenMs: 0.046 } as const;

/** Time from host RAM to the GPU and back: 21 GB/s, as vLLM's sleep mode was measured on PCIe 4. */
const sleepBytesPerMs = 21e6;

/** ms of `tokens` new tokens behind `cached` ones. */
export function prefillMs(profile: CostProfile, tokens: number, cached = 0): number {
  return profile.p1 * tokens + profile.p2 * ((cached + tokens) ** 2 - cached ** 2);
}

/** ms of one token for each of `sequences`, whose contexts add up to `contextTokens`. */
export function decodeMs(profile: CostProfile, sequences: number, contextTokens: number): number {
  return profile.w0 + profile.b * sequences + profile.k * contextTokens;
}

/** Work of one step of the batch. */
export interface StepWork {
  /** ms of prefill by `prefillMs`, all chunks together. */
  readonly prefillMs: number;
  readonly decodes: number;
  readonly contextTokens: number;
}

/** ms of a whole step, prefill chunks and decodes together. */
export function stepMs(profile: CostProfile, work: StepWork): number {
  const floor = Math.max(profile.w0, work.prefillMs);
  return overhead.stepMs + overhead.factor * (floor + profile.b * work.decodes + profile.k * work.contextTokens);
}

/** ms that the weights take to the GPU or back. */
export function transferMs(weightsBytes: number): number {
  return 100 + weightsBytes / sleepBytesPerMs;
}
