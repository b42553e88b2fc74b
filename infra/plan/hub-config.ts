import { z } from "zod";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { problemLines } from "../../runtime/contracts/validate.ts";

const positive = z.int().min(1);
const orNull = <Schema extends z.ZodType>(schema: Schema): z.ZodOptional<z.ZodNullable<Schema>> =>
  schema.nullable().optional();

/** What decides memory in a `config.json` of the Hugging Face hub, under the names that transformers gives it. */
const hubText = z.looseObject({
  num_hidden_layers: positive.max(1000),
  hidden_size: positive,
  num_attention_heads: positive,
  num_key_value_heads: orNull(positive),
  head_dim: orNull(positive),
  intermediate_size: orNull(positive),
  vocab_size: orNull(positive),
  max_position_embeddings: orNull(positive),
  tie_word_embeddings: orNull(z.boolean()),
  // Experts.
  num_local_experts: orNull(positive),
  num_experts: orNull(positive),
  n_routed_experts: orNull(positive),
  n_shared_experts: orNull(z.int().min(0)),
  num_experts_per_tok: orNull(positive),
  moe_intermediate_size: orNull(positive),
  first_k_dense_replace: orNull(z.int().min(0)),
  decoder_sparse_step: orNull(positive),
  mlp_only_layers: orNull(z.array(z.int())),
  // Multi-head latent attention.
  kv_lora_rank: orNull(positive),
  q_lora_rank: orNull(positive),
  qk_nope_head_dim: orNull(positive),
  qk_rope_head_dim: orNull(positive),
  v_head_dim: orNull(positive),
  // Sliding windows.
  sliding_window: orNull(positive),
  sliding_window_pattern: orNull(positive),
  use_sliding_window: orNull(z.boolean()),
  max_window_layers: orNull(z.int().min(0)),
  layer_types: orNull(z.array(z.string()).max(1000)),
});

const quantization = z.looseObject({
  quant_method: orNull(z.string()),
  quant_algo: orNull(z.string()),
  bits: orNull(z.number()),
  load_in_4bit: orNull(z.boolean()),
  config_groups: orNull(
    z.record(
      z.string(),
      z.looseObject({ weights: orNull(z.looseObject({ num_bits: orNull(z.number()), type: orNull(z.string()) })) }),
    ),
  ),
});

const hubFile = z.looseObject({
  architectures: orNull(z.array(z.string())),
  model_type: orNull(z.string()),
  dtype: orNull(z.string()),
  torch_dtype: orNull(z.string()),
  tie_word_embeddings: orNull(z.boolean()),
  quantization_config: orNull(quantization),
  text_config: orNull(z.looseObject({})),
  vision_config: orNull(z.looseObject({})),
});

/** The part about the language model, with the defaults that transformers fills in. */
export type HubText = z.infer<typeof hubText>;
/** The whole file. */
export type HubFile = z.infer<typeof hubFile>;
export type HubQuantization = z.infer<typeof quantization>;

/** A model's `config.json`, split into the whole and its language part. */
export interface HubConfig {
  readonly file: HubFile;
  readonly text: HubText;
  readonly type: string;
}

/**
 * What transformers fills in where a file leaves it out: Gemma 3 publishes its text part without the fields that have their
 * class's default (configuration_gemma3.py), and vision models that were saved with early versions likewise.
 */
const defaults: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  gemma3: {
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    vocab_size: 262208,
    max_position_embeddings: 131072,
  },
  gemma3_text: {
    num_attention_heads: 8,
    num_key_value_heads: 4,
    head_dim: 256,
    vocab_size: 262208,
    max_position_embeddings: 131072,
  },
};

/** Reads a `config.json`. Throws `invalid_config` that names every field that is missing or wrong. */
export function readHubConfig(content: unknown): HubConfig {
  const file = hubFile.safeParse(content);
  if (!file.success) throw refused(problemLines(file.error));
  const type = file.data.model_type ?? "";
  const inner = file.data.text_config ?? file.data;
  const text = hubText.safeParse({ ...defaults[type], ...withoutNulls(inner) });
  if (!text.success) throw refused(problemLines(text.error));
  return { file: file.data, text: text.data, type };
}

function withoutNulls(values: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
}

function refused(problems: readonly string[]): PenstockError {
  return new PenstockError(
    "invalid_config",
    `config.json is none of a model that Penstock knows: ${problems.join("; ")}. Write the model's shape by hand.`,
  );
}
