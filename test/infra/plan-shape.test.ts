import { describe, expect, test } from "vitest";
import { shapeNamed } from "../../infra/catalog/shapes.ts";
import { kvBytesPerToken } from "../../infra/plan/model-memory.ts";
import { shapeOf } from "../../infra/plan/shape-of.ts";
import { modelShape } from "../../infra/stack/shape.ts";

/*
 * Contents of `config.json` as the hub has them (fields that decide nothing about memory are left out), and what their
 * publishers say of the parameters.
 */
const llama70b = {
  architectures: ["LlamaForCausalLM"],
  attention_bias: false,
  hidden_act: "silu",
  hidden_size: 8192,
  intermediate_size: 28672,
  max_position_embeddings: 131072,
  model_type: "llama",
  num_attention_heads: 64,
  num_hidden_layers: 80,
  num_key_value_heads: 8,
  rope_scaling: { factor: 8.0, original_max_position_embeddings: 8192, rope_type: "llama3" },
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  vocab_size: 128256,
};

const llama8b = {
  ...llama70b,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_attention_heads: 32,
  num_hidden_layers: 32,
};

const qwen3Moe = {
  architectures: ["Qwen3MoeForCausalLM"],
  model_type: "qwen3_moe",
  head_dim: 128,
  hidden_size: 2048,
  intermediate_size: 6144,
  moe_intermediate_size: 768,
  mlp_only_layers: [],
  decoder_sparse_step: 1,
  max_position_embeddings: 40960,
  num_attention_heads: 32,
  num_experts: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 48,
  num_key_value_heads: 4,
  sliding_window: null,
  use_sliding_window: false,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  vocab_size: 151936,
};

const deepseek = {
  architectures: ["DeepseekV3ForCausalLM"],
  model_type: "deepseek_v3",
  first_k_dense_replace: 3,
  hidden_size: 7168,
  intermediate_size: 18432,
  kv_lora_rank: 512,
  max_position_embeddings: 163840,
  moe_intermediate_size: 2048,
  moe_layer_freq: 1,
  n_routed_experts: 256,
  n_shared_experts: 1,
  num_attention_heads: 128,
  num_experts_per_tok: 8,
  num_hidden_layers: 61,
  num_key_value_heads: 128,
  q_lora_rank: 1536,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  quantization_config: {
    activation_scheme: "dynamic",
    fmt: "e4m3",
    quant_method: "fp8",
    weight_block_size: [128, 128],
  },
  torch_dtype: "bfloat16",
  v_head_dim: 128,
  vocab_size: 129280,
};

const kimi = {
  ...deepseek,
  model_type: "kimi_k2",
  num_attention_heads: 64,
  num_key_value_heads: 64,
  vocab_size: 163840,
  max_position_embeddings: 131072,
  n_routed_experts: 384,
  first_k_dense_replace: 1,
};

const gptOss = {
  architectures: ["GptOssForCausalLM"],
  model_type: "gpt_oss",
  head_dim: 64,
  hidden_size: 2880,
  intermediate_size: 2880,
  layer_types: Array.from({ length: 24 }, (_, layer) => (layer % 2 === 0 ? "sliding_attention" : "full_attention")),
  max_position_embeddings: 131072,
  num_attention_heads: 64,
  num_experts_per_tok: 4,
  num_hidden_layers: 24,
  num_key_value_heads: 8,
  num_local_experts: 32,
  quantization_config: { modules_to_not_convert: ["model.embed_tokens", "lm_head"], quant_method: "mxfp4" },
  sliding_window: 128,
  tie_word_embeddings: false,
  vocab_size: 201088,
};

const mixtral = {
  architectures: ["MixtralForCausalLM"],
  model_type: "mixtral",
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  num_attention_heads: 32,
  num_experts_per_tok: 2,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  num_local_experts: 8,
  sliding_window: null,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  vocab_size: 32000,
};

const gemma2 = {
  architectures: ["Gemma2ForCausalLM"],
  model_type: "gemma2",
  head_dim: 256,
  hidden_size: 3584,
  intermediate_size: 14336,
  max_position_embeddings: 8192,
  num_attention_heads: 16,
  num_hidden_layers: 42,
  num_key_value_heads: 8,
  sliding_window: 4096,
  torch_dtype: "bfloat16",
  vocab_size: 256000,
};

// Gemma 3 leaves out what its class has by default.
const gemma3 = {
  architectures: ["Gemma3ForConditionalGeneration"],
  model_type: "gemma3",
  text_config: {
    hidden_size: 2560,
    intermediate_size: 10240,
    model_type: "gemma3_text",
    num_hidden_layers: 34,
    rope_scaling: { factor: 8.0, rope_type: "linear" },
    sliding_window: 1024,
  },
  torch_dtype: "bfloat16",
  vision_config: {
    hidden_size: 1152,
    image_size: 896,
    intermediate_size: 4304,
    num_attention_heads: 16,
    num_hidden_layers: 27,
  },
};

const phi4mini = {
  architectures: ["Phi3ForCausalLM"],
  model_type: "phi3",
  hidden_size: 3072,
  intermediate_size: 8192,
  max_position_embeddings: 131072,
  num_attention_heads: 24,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  sliding_window: 262144,
  tie_word_embeddings: true,
  torch_dtype: "bfloat16",
  vocab_size: 200064,
};

const qwen2vl = {
  architectures: ["Qwen2VLForConditionalGeneration"],
  model_type: "qwen2_vl",
  hidden_size: 3584,
  intermediate_size: 18944,
  max_position_embeddings: 32768,
  max_window_layers: 28,
  num_attention_heads: 28,
  num_hidden_layers: 28,
  num_key_value_heads: 4,
  sliding_window: 32768,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  use_sliding_window: false,
  vision_config: { depth: 32, embed_dim: 1280, mlp_ratio: 4, num_heads: 16, hidden_size: 3584 },
  vocab_size: 152064,
};

const mllama = {
  architectures: ["MllamaForConditionalGeneration"],
  model_type: "mllama",
  text_config: {
    hidden_size: 4096,
    intermediate_size: 14336,
    max_position_embeddings: 131072,
    num_attention_heads: 32,
    num_hidden_layers: 40,
    num_key_value_heads: 8,
    vocab_size: 128256,
  },
  torch_dtype: "bfloat16",
  vision_config: { hidden_size: 1280, num_hidden_layers: 32, num_global_layers: 8 },
};

const bgeM3 = {
  architectures: ["XLMRobertaModel"],
  model_type: "xlm-roberta",
  hidden_size: 1024,
  intermediate_size: 4096,
  max_position_embeddings: 8194,
  num_attention_heads: 16,
  num_hidden_layers: 24,
  torch_dtype: "float32",
  vocab_size: 250002,
};

const mistral = {
  architectures: ["MistralForCausalLM"],
  model_type: "mistral",
  hidden_size: 4096,
  intermediate_size: 14336,
  max_position_embeddings: 32768,
  num_attention_heads: 32,
  num_hidden_layers: 32,
  num_key_value_heads: 8,
  sliding_window: 4096,
  tie_word_embeddings: false,
  torch_dtype: "bfloat16",
  vocab_size: 32000,
};

describe("parameters, counted from the sizes of the matrices", () => {
  test.each([
    ["Llama 3.3 70B", llama70b, 70.55, undefined],
    ["Llama 3.1 8B", llama8b, 8.03, undefined],
    ["Qwen3 30B A3B", qwen3Moe, 30.53, 3.3],
    ["DeepSeek V3", deepseek, 671, 37],
    ["Kimi K2", kimi, 1026, 32],
    ["gpt-oss 20B", gptOss, 20.9, 3.6],
    ["Mixtral 8x7B", mixtral, 46.7, 12.9],
    ["Gemma 2 9B", gemma2, 9.24, undefined],
    ["Gemma 3 4B", gemma3, 4.3, undefined],
    ["Phi 4 mini", phi4mini, 3.84, undefined],
    ["Qwen2-VL 7B", qwen2vl, 8.29, undefined],
    ["bge-m3", bgeM3, 0.568, undefined],
    ["Mistral 7B", mistral, 7.24, undefined],
  ])("%s", (...[, config, all, active]) => {
    const shape = shapeOf(config);
    expect(Math.abs(shape.parametersB / all - 1)).toBeLessThan(0.03);
    expect(shape.activeParametersB === undefined).toBe(active === undefined);
    // Publishers differ in whether embeddings are active.
    expect(Math.abs((shape.activeParametersB ?? 1) / (active ?? 1) - 1)).toBeLessThan(0.2);
  });

  test("those of the index are better, and its size is that of the files", () => {
    const index = { metadata: { total_size: 141107412992, total_parameters: 70553706496 }, weight_map: {} };
    expect(shapeOf(llama70b, { index })).toMatchObject({ parametersB: 70.554, weightsGiB: 131.417 });
    expect(shapeOf(llama70b, { index, sizeBytes: 2 ** 30 })).toMatchObject({ weightsGiB: 1 });
    expect(shapeOf(llama70b, { index: "nonsense" })).not.toHaveProperty("weightsGiB");
  });
});

describe("what decides the KV cache", () => {
  test.each([
    ["Llama 3.3 70B", llama70b, "llama-3.1-70b"],
    ["Llama 3.1 8B", llama8b, "llama-3.1-8b"],
    ["Qwen3 30B A3B", qwen3Moe, "qwen3-30b-a3b"],
    ["DeepSeek V3", deepseek, "deepseek-v3"],
    ["gpt-oss 20B", gptOss, "gpt-oss-20b"],
    ["Mixtral 8x7B", mixtral, "mixtral-8x7b"],
    ["Gemma 2 9B", gemma2, "gemma-2-9b"],
    ["Phi 4 mini", phi4mini, "phi-4-mini"],
    ["bge-m3", bgeM3, "bge-m3"],
    ["Llama 3.2 11B Vision", mllama, "llama-3.2-11b-vision"],
  ])("%s is as the catalogue has it", (...[, config, name]) => {
    const { parametersB: _, activeParametersB: __, weightsGiB: ___, ...known } = shapeNamed(name) ?? {};
    expect(shapeOf(config)).toMatchObject(known);
  });

  test("a latent in place of heads", () => {
    expect(kvBytesPerToken(shapeOf(kimi), 2)).toBe(61 * 576 * 2);
  });

  test("windows: listed, by the class, over all layers, or none that ever fills", () => {
    expect(shapeOf(gptOss).slidingWindow).toEqual({ tokens: 128, layers: 12 });
    expect(shapeOf(gemma3).slidingWindow).toEqual({ tokens: 1024, layers: 29 });
    expect(shapeOf(mistral).slidingWindow).toEqual({ tokens: 4096, layers: 32 });
    for (const config of [phi4mini, qwen2vl, mixtral]) expect(shapeOf(config).slidingWindow).toBeUndefined();
  });

  test("defaults of Gemma 3's class are filled in", () => {
    expect(shapeOf(gemma3)).toMatchObject({
      attentionHeads: 8,
      kvHeads: 4,
      headSize: 256,
      vocabulary: 262208,
      vision: true,
    });
  });
});

describe("how weights are stored", () => {
  test.each([
    [{ quant_method: "fp8" }, "fp8"],
    [{ quant_method: "mxfp4" }, "mxfp4"],
    [{ quant_method: "awq", bits: 4 }, "int4"],
    [{ quant_method: "gptq", bits: 8 }, "int8"],
    [{ quant_method: "bitsandbytes", load_in_4bit: true }, "int4"],
    [{ quant_method: "modelopt", quant_algo: "NVFP4" }, "fp4"],
    [{ quant_method: "modelopt", quant_algo: "FP8" }, "fp8"],
    [
      { quant_method: "compressed-tensors", config_groups: { group_0: { weights: { num_bits: 8, type: "float" } } } },
      "fp8",
    ],
    [
      { quant_method: "compressed-tensors", config_groups: { group_0: { weights: { num_bits: 4, type: "int" } } } },
      "int4",
    ],
    [
      { quant_method: "compressed-tensors", config_groups: { group_0: { weights: { num_bits: 4, type: "float" } } } },
      "fp4",
    ],
    [null, "bf16"],
  ])("%j is %s", (quantization_config, weights) => {
    expect(shapeOf({ ...llama8b, quantization_config }).weights).toBe(weights);
  });

  test.each([
    [{ torch_dtype: "float16" }, "fp16"],
    [{ torch_dtype: undefined, dtype: "float32" }, "fp32"],
    [{ torch_dtype: undefined }, "bf16"],
  ])("%j is %s", (change, weights) => {
    expect(shapeOf({ ...llama8b, ...change }).weights).toBe(weights);
  });
});

test("encoders embed, others generate", () => {
  expect(shapeOf(bgeM3).task).toBe("embed");
  expect(shapeOf({ ...bgeM3, architectures: ["BertModel"], model_type: "bert" }).contextTokens).toBe(8194);
  expect(shapeOf(bgeM3).contextTokens).toBe(8192);
  expect(shapeOf(llama8b).task).toBe("generate");
});

test("every shape is one that a stack may spell out", () => {
  for (const config of [llama70b, qwen3Moe, deepseek, gptOss, gemma3, qwen2vl, mllama, bgeM3]) {
    expect(modelShape.safeParse(shapeOf(config)).error).toBeUndefined();
  }
});

test.each([
  [
    {},
    /config\.json is none of a model that Penstock knows: num_hidden_layers: .*; hidden_size: .*; num_attention_heads: /,
  ],
  [{ ...llama8b, num_hidden_layers: "many" }, /num_hidden_layers: /],
  [{ ...llama8b, num_attention_heads: 0 }, /num_attention_heads: /],
  [{ ...llama8b, num_hidden_layers: 1e9 }, /num_hidden_layers: /],
  ["text", /config\.json is none/],
  [null, /config\.json is none/],
])("refuses what is no model: %#", (config, problem) => {
  expect(() => shapeOf(config)).toThrow(problem);
});
