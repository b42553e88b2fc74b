import { z } from "zod";

const size = z
  .int()
  .positive()
  .max(2 ** 31);
/** A size that some models have per layer, or not at all: then nothing is known about it. */
const maybe = size.optional().catch(undefined);

const textConfig = z.looseObject({
  hidden_size: maybe,
  intermediate_size: maybe,
  num_hidden_layers: maybe,
  num_attention_heads: maybe,
  num_key_value_heads: maybe,
  head_dim: maybe,
});

/** A model's `config.json`, as far as it matters here. Models that see or hear keep their text model's in `text_config`. */
export const baseConfig = z.looseObject({ ...textConfig.shape, text_config: textConfig.optional().catch(undefined) });

/** Sizes of a model; undefined where its configuration does not say, or says that layers differ. */
export interface BaseSizes {
  readonly hidden: number | undefined;
  readonly intermediate: number | undefined;
  readonly layers: number | undefined;
  /** Numbers in all heads of one layer together, and in its key-value heads. */
  readonly heads: number | undefined;
  readonly keyValueHeads: number | undefined;
}

/** Fields of models whose heads differ between layers or between keys and values: DeepSeek's, Gemma 4. */
const unevenHeads = ["kv_lora_rank", "v_head_dim", "qk_nope_head_dim", "global_head_dim"];
/** Gemma 4 again: its later layers may have twice the intermediate size. */
const unevenLayers = "use_double_wide_mlp";

/** The sizes that a model's `config.json` gives. */
export function sizesOf(config: z.infer<typeof baseConfig>): BaseSizes {
  const text = config.text_config ?? config;
  const { hidden_size: hidden, num_attention_heads: heads, num_key_value_heads: keyValueHeads } = text;
  const headSize = text.head_dim ?? quotient(hidden, heads);
  const isUneven = unevenHeads.some((field) => isSet(text[field]));
  return {
    hidden,
    intermediate: isSet(text[unevenLayers]) ? undefined : text.intermediate_size,
    layers: text.num_hidden_layers,
    heads: isUneven ? undefined : product(heads, headSize),
    keyValueHeads: isUneven ? undefined : product(keyValueHeads, headSize),
  };
}

function isSet(value: unknown): boolean {
  return value !== undefined && value !== null && value !== false;
}

function quotient(a: number | undefined, b: number | undefined): number | undefined {
  return a !== undefined && b !== undefined && a % b === 0 ? a / b : undefined;
}

function product(a: number | undefined, b: number | undefined): number | undefined {
  return a !== undefined && b !== undefined ? a * b : undefined;
}
