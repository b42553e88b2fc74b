import { PenstockError } from "../contracts/errors.ts";
import type { GoldenProbe, Version } from "./engine.ts";

/**
 * Words that any model continues, long enough to fill more than one KV block, so that a broken cache shows as well.
 */
const goldenPrompt =
  "The water runs down from the lake through a long pipe to the turbine in the valley, and there it turns the wheel. One, two, three,";

/** Tokens that a golden completion has: enough for an error to add up, few enough to take well under a second. */
const goldenTokens = 16;

/** A golden prompt through OpenAI's completions endpoint. */
export function completionProbe(model: string): GoldenProbe {
  return {
    kind: "completion",
    call: {
      method: "POST",
      path: "/v1/completions",
      body: { model, prompt: goldenPrompt, max_tokens: goldenTokens, temperature: 0, seed: 1, logprobs: 1 },
    },
  };
}

/** The same without log-probabilities, for engines that refuse to give them. */
export function textProbe(model: string): GoldenProbe {
  return {
    kind: "completion",
    call: {
      method: "POST",
      path: "/v1/completions",
      body: { model, prompt: goldenPrompt, max_tokens: goldenTokens, temperature: 0, seed: 1 },
    },
  };
}

/** The same through OpenAI's embeddings endpoint. */
export function embeddingProbe(model: string): GoldenProbe {
  return {
    kind: "embedding",
    call: { method: "POST", path: "/v1/embeddings", body: { model, input: goldenPrompt, encoding_format: "float" } },
  };
}

/**
 * The GPUs that an engine may see, by their index on the bus as `nvidia-smi` counts them. An empty list hides all, so
 * that an engine that was given none takes none.
 */
export function gpuEnvironment(gpus: readonly number[]): Record<string, string> {
  return { CUDA_DEVICE_ORDER: "PCI_BUS_ID", CUDA_VISIBLE_DEVICES: gpus.join(",") };
}

/** Whether `version` is `minimum` or newer. */
export function atLeast(version: Version, minimum: Version): boolean {
  for (const [at, least] of minimum.entries()) {
    const part = version[at] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}

/** The answer of an engine that cannot load or unload adapters while it serves. Throws `unsupported`. */
export function noRuntimeAdapters(remedy: string): never {
  throw new PenstockError("unsupported", remedy, { param: "adapters" });
}

/** Engines that load weights from local disk have no business with the model hub, nor with anyone's usage statistics. */
export const offlineEnvironment = { HF_HUB_OFFLINE: "1", DO_NOT_TRACK: "1" } as const;

/** Severities that the agent's log levels mean; `info` for one that is unknown. */
type Severity = "error" | "warning" | "info" | "debug" | "trace";

/** The agent's log level as an engine's own words. */
export function logLevelIn<Word extends string>(words: Readonly<Record<Severity, Word>>, logLevel: string): Word {
  if (logLevel === "silent" || logLevel === "fatal" || logLevel === "error") return words.error;
  if (logLevel === "warn") return words.warning;
  if (logLevel === "debug" || logLevel === "trace") return words[logLevel];
  return words.info;
}
