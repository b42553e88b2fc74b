import type { HubConfig, HubText } from "./hub-config.ts";

/** Parameters of a model, and those that one token uses. */
export interface Parameters {
  readonly all: number;
  readonly active: number;
}

/** Counts parameters from the sizes of the matrices; norms and biases, well under 1 %, are left out. */
export function countParameters({ file, text, type }: HubConfig): Parameters {
  const embeddings = (text.vocab_size ?? 0) * text.hidden_size * (isTied({ file, text, type }) ? 1 : 2);
  const attention = text.num_hidden_layers * attentionParameters(text);
  const sparse = sparseLayers(text);
  const dense = (text.num_hidden_layers - sparse) * mlp(text, text.intermediate_size ?? 4 * text.hidden_size, type);
  const expert = mlp(text, text.moe_intermediate_size ?? text.intermediate_size ?? 0, type);
  const router = text.hidden_size * expertCount(text);
  const shared = text.n_shared_experts ?? 0;
  const fixed =
    embeddings + attention + dense + sparse * (router + shared * expert) + visionParameters(file.vision_config);
  return {
    all: fixed + sparse * expertCount(text) * expert,
    active: fixed + sparse * (text.num_experts_per_tok ?? 0) * expert,
  };
}

/** Experts of each sparse layer; 0 for a dense model. */
export function expertCount(text: HubText): number {
  return text.num_local_experts ?? text.num_experts ?? text.n_routed_experts ?? 0;
}

/** Size of a head: written, that of the values with latent attention, or the hidden size shared out. */
export function headSize(text: HubText): number {
  const latent = typeof text.kv_lora_rank === "number" ? text.v_head_dim : undefined;
  return text.head_dim ?? latent ?? Math.floor(text.hidden_size / text.num_attention_heads);
}

function attentionParameters(text: HubText): number {
  const { hidden_size: hidden, num_attention_heads: heads, kv_lora_rank: latent } = text;
  const size = headSize(text);
  if (typeof latent !== "number") {
    const kvHeads = text.num_key_value_heads ?? heads;
    return hidden * size * (2 * heads + 2 * kvHeads);
  }
  const nope = text.qk_nope_head_dim ?? size;
  const rope = text.qk_rope_head_dim ?? 64;
  const value = text.v_head_dim ?? size;
  const query =
    typeof text.q_lora_rank === "number"
      ? text.q_lora_rank * (hidden + heads * (nope + rope))
      : hidden * heads * (nope + rope);
  return query + hidden * (latent + rope) + latent * heads * (nope + value) + heads * value * hidden;
}

/** Gated layers have three matrices; encoders of BERT's kind two. */
function mlp(text: HubText, intermediate: number, type: string): number {
  return (isEncoder(type) ? 2 : 3) * text.hidden_size * intermediate;
}

function sparseLayers(text: HubText): number {
  if (expertCount(text) === 0) return 0;
  const every = text.decoder_sparse_step ?? 1;
  const dense = new Set(text.mlp_only_layers ?? []);
  const first = text.first_k_dense_replace ?? 0;
  return Array.from({ length: text.num_hidden_layers }, (_, layer) => layer).filter(
    (layer) => layer >= first && (layer + 1) % every === 0 && !dense.has(layer),
  ).length;
}

/** Models of BERT's kind: one look at a text, no output layer. */
export function isEncoder(type: string): boolean {
  return /bert|roberta/.test(type);
}

/** Gemma ties by its class's default, encoders have no output layer. */
function isTied({ file, text, type }: HubConfig): boolean {
  if (isEncoder(type)) return true;
  return text.tie_word_embeddings ?? file.tie_word_embeddings ?? type.startsWith("gemma");
}

/** A vision tower: 12 x hidden squared in each layer. */
function visionParameters(vision: Readonly<Record<string, unknown>> | null | undefined): number {
  if (vision === null || vision === undefined) return 0;
  const number = (...names: string[]): number =>
    names.map((name) => vision[name]).find((value) => typeof value === "number") ?? 0;
  const layers = number("num_hidden_layers", "depth") + number("num_global_layers");
  // Qwen2-VL's `hidden_size` is that of the language model; its own is `embed_dim`.
  const hidden = number("embed_dim", "hidden_size");
  return 12 * layers * hidden * hidden;
}
