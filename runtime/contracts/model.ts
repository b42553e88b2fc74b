import { z } from "zod";

/**
 * A model's id, as clients name it: 1 to 4 segments of letters, digits, `.`, `_`, `-`, divided by `/`.
 * No segment starts with a dot, so an id never climbs out of a folder; no `:`, which divides `base:adapter`.
 */
export const modelId = z
  .string()
  .max(200)
  .regex(
    /^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*){0,3}$/,
    "must be letters, digits, `.`, `_`, `-` in at most 4 segments divided by `/`, such as `llama-3.1-8b`",
  );

/** Where weights come from. One scheme per kind of store; `runtime/agent/sources` has a file for each. */
export const sourceSchemes = ["file", "https", "http", "hf", "az", "s3"] as const;
export type SourceScheme = (typeof sourceSchemes)[number];

/** URI of a model in a store: one GGUF file, or a folder with a whole repository. */
export const sourceUri = z
  .string()
  .regex(/^(file|https?|hf|az|s3):\/\/\S+$/, "must start with file://, https://, hf://, az:// or s3://");

/** Format of the weights. */
export const modelFormat = z.enum(["gguf", "safetensors", "engine"]);

const sha256 = z.string().regex(/^[0-9a-f]{64}$/, "must be 64 hexadecimal digits");

/** Name of an adapter within its model. */
export const adapterName = z
  .string()
  .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}$/, "must be 1 to 64 letters, digits, `.`, `_` or `-`");

/** A LoRA adapter that belongs to a model; clients name it `model:adapter`. */
export const adapterSpec = z.strictObject({
  name: adapterName,
  source: sourceUri,
  sha256: sha256.optional(),
});

/** A model: its id, where it comes from, and what the bytes must hash to. */
export const modelSpec = z.strictObject({
  id: modelId,
  source: sourceUri,
  format: modelFormat.default("gguf"),
  sha256: sha256.optional(),
  adapters: z.array(adapterSpec).default([]),
});

export type ModelFormat = z.infer<typeof modelFormat>;
export type AdapterSpec = z.infer<typeof adapterSpec>;
export type ModelSpec = z.infer<typeof modelSpec>;

/** Where a model's weights are, from the slowest to reach to the fastest. */
export const tiers = ["REMOTE", "NVME_CACHED", "DRAM_CACHED", "GPU_RESIDENT"] as const;
export type Tier = (typeof tiers)[number];

/** What an agent is doing with a model. `FAILED` carries a reason beside it. */
export const modelStates = [
  "DOWNLOADING",
  "VERIFYING",
  "LOADING_TO_GPU",
  "READY",
  "SLEEPING",
  "UNLOADED",
  "FAILED",
] as const;
export type ModelState = (typeof modelStates)[number];
