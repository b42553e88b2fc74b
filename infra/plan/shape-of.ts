import { z } from "zod";
import type { ModelShape, WeightType } from "../stack/shape.ts";
import { readHubConfig, type HubConfig, type HubQuantization, type HubText } from "./hub-config.ts";
import { countParameters, expertCount, headSize, isEncoder } from "./hub-parameters.ts";
import { round } from "./text.ts";

/** `model.safetensors.index.json`, as far as it matters. */
const weightIndex = z.looseObject({
  metadata: z.looseObject({
    total_size: z.coerce.number().positive().optional(),
    total_parameters: z.coerce.number().positive().optional(),
  }),
});

/** What is known of a model's files beside its `config.json`. */
export interface WeightFiles {
  /** The parsed `model.safetensors.index.json`, where the weights are in several files. */
  readonly index?: unknown;
  /** Size of all weight files together; it wins over the index. */
  readonly sizeBytes?: number;
}

/**
 * A model's shape from its own `config.json`, as the hub has it: Llama, Mistral and Mixtral, Qwen 2 and 3, Gemma 2 and 3,
 * DeepSeek, gpt-oss, Phi, encoders of BERT's kind, and vision models with a `text_config`. Anything else with the same
 * field names works too. Throws `invalid_config` that names every field that is missing.
 */
export function shapeOf(configJson: unknown, { index, sizeBytes }: WeightFiles = {}): ModelShape {
  const config = readHubConfig(configJson);
  const { text } = config;
  const metadata = weightIndex.safeParse(index).data?.metadata;
  const counted = countParameters(config);
  const bytes = sizeBytes ?? metadata?.total_size;
  const contextTokens = contextOf(config);
  const window = slidingWindow(config, contextTokens);
  const latent = text.kv_lora_rank;
  return {
    parametersB: round((metadata?.total_parameters ?? counted.all) / 1e9, 3),
    ...(expertCount(text) === 0 ? {} : { activeParametersB: round(counted.active / 1e9, 2) }),
    layers: text.num_hidden_layers,
    attentionHeads: text.num_attention_heads,
    kvHeads: text.num_key_value_heads ?? text.num_attention_heads,
    headSize: headSize(text),
    hiddenSize: text.hidden_size,
    vocabulary: text.vocab_size ?? 32000,
    contextTokens,
    weights: weightType(config),
    ...(bytes === undefined ? {} : { weightsGiB: round(bytes / 2 ** 30, 3) }),
    ...(typeof latent === "number" ? { latentKvSize: latent + (text.qk_rope_head_dim ?? 64) } : {}),
    ...(window === null ? {} : { slidingWindow: window }),
    vision: config.file.vision_config !== null && config.file.vision_config !== undefined,
    task: taskOf(config),
  };
}

/** RoBERTa counts positions from 2. */
function contextOf({ text, type }: HubConfig): number {
  const positions = text.max_position_embeddings ?? 4096;
  return type.includes("roberta") ? positions - 2 : positions;
}

/** A class that ends in `Model` has no output layer: it embeds. */
function taskOf({ file, type }: HubConfig): ModelShape["task"] {
  const classes = file.architectures ?? [];
  const embeds = classes.some((name) => name.endsWith("Model") && !name.endsWith("LMHeadModel"));
  return embeds || isEncoder(type) ? "embed" : "generate";
}

const dtypes: Readonly<Record<string, WeightType>> = { bfloat16: "bf16", float16: "fp16", float32: "fp32" };

function weightType({ file, text }: HubConfig): WeightType {
  const quantized = file.quantization_config ?? null;
  const type = quantized === null ? null : quantizedType(quantized);
  if (type !== null) return type;
  const inner = [text["dtype"], text["torch_dtype"]].find((value) => typeof value === "string");
  return dtypes[file.dtype ?? file.torch_dtype ?? inner ?? ""] ?? "bf16";
}

function quantizedType(config: HubQuantization): WeightType | null {
  const method = config.quant_method ?? "";
  if (method === "mxfp4") return "mxfp4";
  if (method.startsWith("awq") || method.startsWith("gptq")) return config.bits === 8 ? "int8" : "int4";
  if (method === "bitsandbytes") return config.load_in_4bit === true ? "int4" : "int8";
  const algorithm = (config.quant_algo ?? "").toUpperCase();
  if (algorithm.includes("FP4")) return "fp4";
  if (method === "fp8" || algorithm.includes("FP8")) return "fp8";
  const [group] = Object.values(config.config_groups ?? {});
  const bits = group?.weights?.num_bits;
  const isFloat = group?.weights?.type === "float";
  if (bits === 8) return isFloat ? "fp8" : "int8";
  if (bits === 4) return isFloat ? "fp4" : "int4";
  return null;
}

/** Gemma 2 slides in every second layer, Gemma 3 in five of six, unless the file lists its layers. */
const patterns: Readonly<Record<string, number>> = { gemma2: 2, gemma3: 6, gemma3_text: 6, gpt_oss: 2 };

function slidingWindow({ text, type }: HubConfig, contextTokens: number): ModelShape["slidingWindow"] | null {
  const tokens = text.sliding_window;
  if (typeof tokens !== "number" || tokens >= contextTokens || text.use_sliding_window === false) return null;
  const layers = slidingLayers(text, type);
  return layers === 0 ? null : { tokens, layers };
}

function slidingLayers(text: HubText, type: string): number {
  const all = text.num_hidden_layers;
  if (text.layer_types !== null && text.layer_types !== undefined) {
    return text.layer_types.filter((layer) => layer === "sliding_attention").length;
  }
  const pattern = text.sliding_window_pattern ?? patterns[type];
  if (typeof pattern === "number") return all - Math.floor(all / pattern);
  // Qwen 2 slides in its upper layers alone.
  if (text.use_sliding_window === true) return Math.max(0, all - (text.max_window_layers ?? 0));
  return type === "mistral" || type === "mixtral" || type === "phi3" ? all : 0;
}
