import { writeFile } from "node:fs/promises";
import { writeGguf, type GgufMetadata, type GgufTensor, type GgufValue } from "../../runtime/demo/gguf.ts";

/*
 * Tiny GGUF files made of nothing: a llama-shaped model with random weights (and a LoRA adapter for it), so that the
 * engine's tests depend on no download and on no model's quality.
 */

type Matrix = Omit<GgufTensor, "encoding">;

function write(metadata: GgufMetadata, tensors: readonly Matrix[]): Buffer {
  return writeGguf(
    metadata,
    tensors.map((tensor) => ({ ...tensor, encoding: "F32" })),
  );
}

/** Normal numbers from a seed (mulberry32 and Box-Muller), so that every run has the same model. */
function randomNormals(seed: number): (count: number, scale: number) => Float32Array {
  let state = seed;
  const next = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return (count, scale) =>
    Float32Array.from({ length: count }, () => {
      const radius = Math.sqrt(-2 * Math.log(next() + 1e-12));
      return radius * Math.cos(2 * Math.PI * next()) * scale;
    });
}

function isPrintable(byte: number): boolean {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
}

/** GPT-2's printable stand-in for each byte. */
function byteTokens(): string[] {
  let extra = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : extra++));
}

const merges = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "> x"];
const controlTokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const markers = ["<tool_call>", "</tool_call>"];

/** Ids of the special tokens. */
export const specialIds = { endOfText: 263, imStart: 264, imEnd: 265, toolCall: 266, toolCallEnd: 267 } as const;

/** Biases that leave printable ASCII (and the end of the text): every token is a character of its own or a short word. */
export const asciiOnly: Readonly<Record<string, number>> = Object.fromEntries(
  [...Array.from({ length: 256 }, (_, byte) => byte), specialIds.imStart, specialIds.toolCall, specialIds.toolCallEnd]
    .filter((id) => id < 32 || id > 126)
    .map((id) => [String(id), -100]),
);

/** A ChatML template that knows tools, in the manner of the Hermes and Qwen families. */
export const chatTemplate = [
  "{%- if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool.function.name }} {% endfor %}",
  "Answer with <tool_call>{json}</tool_call>.<|im_end|>\n{% endif -%}",
  "{%- for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}",
  "{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor -%}",
  "<|im_end|>\n{% endfor -%}",
  "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif -%}",
].join("");

/** Sizes of a model. */
export interface Shape {
  readonly dim: number;
  readonly layers: number;
  readonly heads: number;
  readonly ffn: number;
  readonly context: number;
}

const tinyShape: Shape = { dim: 64, layers: 2, heads: 4, ffn: 128, context: 1024 };
/** Slow enough on one core that a long prompt takes seconds: 8.5 M parameters, 34 MB. */
export const slowShape: Shape = { dim: 256, layers: 8, heads: 4, ffn: 1024, context: 4096 };

interface TinyModelOptions {
  /** Absent from the file when undefined. */
  readonly chatTemplate?: string | undefined;
  readonly seed?: number;
  readonly shape?: Shape;
}

/**
 * Bytes of a llama-shaped model with byte-level BPE; token ids below 256 are bytes. By default 2 layers, 64 wide,
 * context of 1024, 0.1 M parameters.
 */
export function tinyModel(options: TinyModelOptions = {}): Buffer {
  const shape = options.shape ?? tinyShape;
  const bytes = byteTokens();
  const tokens = [...bytes, ...merges.map((merge) => merge.replace(" ", "")), ...controlTokens, ...markers];
  const firstControl = bytes.length + merges.length;
  const types = tokens.map((_, id) => (id < firstControl ? 1 : id < firstControl + controlTokens.length ? 3 : 4));
  const metadata: Record<string, GgufValue> = {
    "general.architecture": { type: "string", value: "llama" },
    "general.name": { type: "string", value: "tiny" },
    "llama.block_count": { type: "u32", value: shape.layers },
    "llama.context_length": { type: "u32", value: shape.context },
    "llama.embedding_length": { type: "u32", value: shape.dim },
    "llama.feed_forward_length": { type: "u32", value: shape.ffn },
    "llama.attention.head_count": { type: "u32", value: shape.heads },
    "llama.attention.layer_norm_rms_epsilon": { type: "f32", value: 1e-5 },
    "llama.rope.dimension_count": { type: "u32", value: shape.dim / shape.heads },
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: "gpt-2" },
    "tokenizer.ggml.tokens": { type: "strings", value: tokens },
    "tokenizer.ggml.token_type": { type: "i32s", value: types },
    "tokenizer.ggml.merges": { type: "strings", value: merges },
    "tokenizer.ggml.bos_token_id": { type: "u32", value: firstControl },
    "tokenizer.ggml.eos_token_id": { type: "u32", value: firstControl + 2 },
    "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
  };
  const template = "chatTemplate" in options ? options.chatTemplate : chatTemplate;
  if (template !== undefined) metadata["tokenizer.chat_template"] = { type: "string", value: template };
  return write(metadata, modelTensors(tokens.length, shape, options.seed ?? 1));
}

function modelTensors(vocabulary: number, shape: Shape, seed: number): Matrix[] {
  const normals = randomNormals(seed);
  const { dim, ffn } = shape;
  const matrix = (name: string, columns: number, rows: number): Matrix => ({
    name,
    shape: [columns, rows],
    data: normals(columns * rows, 1.5 / Math.sqrt(columns)),
  });
  const ones = (name: string): Matrix => ({ name, shape: [dim], data: new Float32Array(dim).fill(1) });
  const layers = Array.from({ length: shape.layers }, (_, layer) => {
    const at = (part: string) => `blk.${layer}.${part}.weight`;
    return [
      ones(at("attn_norm")),
      ...["attn_q", "attn_k", "attn_v", "attn_output"].map((part) => matrix(at(part), dim, dim)),
      ones(at("ffn_norm")),
      matrix(at("ffn_gate"), dim, ffn),
      matrix(at("ffn_up"), dim, ffn),
      matrix(at("ffn_down"), ffn, dim),
    ];
  });
  return [
    matrix("token_embd.weight", dim, vocabulary),
    ...layers.flat(),
    ones("output_norm.weight"),
    matrix("output.weight", dim, vocabulary),
  ];
}

/** Bytes of a rank-4 LoRA adapter on the model of `tinyModel`, strong enough to change what it says. */
export function tinyLora(seed = 7): Buffer {
  const normals = randomNormals(seed);
  const rank = 4;
  const shape = tinyShape;
  const pair = (target: string): Matrix[] => [
    { name: `${target}.lora_a`, shape: [shape.dim, rank], data: normals(shape.dim * rank, 0.5) },
    { name: `${target}.lora_b`, shape: [rank, shape.dim], data: normals(rank * shape.dim, 0.5) },
  ];
  const layers = Array.from({ length: shape.layers }, (_, layer) => layer);
  return write(
    {
      "general.type": { type: "string", value: "adapter" },
      "general.architecture": { type: "string", value: "llama" },
      "general.name": { type: "string", value: "tiny-lora" },
      "adapter.type": { type: "string", value: "lora" },
      "adapter.lora.alpha": { type: "f32", value: 16 },
    },
    layers.flatMap((layer) => ["attn_q", "attn_v"].flatMap((part) => pair(`blk.${layer}.${part}.weight`))),
  );
}

/** Writes `bytes` to `path` and answers the path. */
export async function writeModel(path: string, bytes: Buffer): Promise<string> {
  await writeFile(path, bytes);
  return path;
}

/** Bytes of a BERT-shaped model, which embeds words and writes nothing: 2 layers, 32 wide, context of 64. */
export function tinyEncoder(): Buffer {
  const [dim, ffn, context, layers] = [32, 64, 64, 2];
  const letters = Array.from("abcdefghijklmnopqrstuvwxyz");
  const tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ...letters.map((letter) => `▁${letter}`), ...letters];
  const normals = randomNormals(3);
  const filled = (name: string, shape: readonly number[], value?: number): Matrix => {
    const count = shape.reduce((product, size) => product * size, 1);
    return { name, shape, data: value === undefined ? normals(count, 0.3) : new Float32Array(count).fill(value) };
  };
  const norm = (name: string) => [filled(`${name}.weight`, [dim], 1), filled(`${name}.bias`, [dim], 0)];
  const linear = (name: string, columns: number, rows: number) => [
    filled(`${name}.weight`, [columns, rows]),
    filled(`${name}.bias`, [rows], 0),
  ];
  const layer = (at: string) => [
    ...["attn_q", "attn_k", "attn_v", "attn_output"].flatMap((part) => linear(at + part, dim, dim)),
    ...norm(`${at}attn_output_norm`),
    ...linear(`${at}ffn_up`, dim, ffn),
    ...linear(`${at}ffn_down`, ffn, dim),
    ...norm(`${at}layer_output_norm`),
  ];
  const metadata: Record<string, GgufValue> = {
    "general.architecture": { type: "string", value: "bert" },
    "bert.block_count": { type: "u32", value: layers },
    "bert.context_length": { type: "u32", value: context },
    "bert.embedding_length": { type: "u32", value: dim },
    "bert.feed_forward_length": { type: "u32", value: ffn },
    "bert.attention.head_count": { type: "u32", value: 4 },
    "bert.attention.layer_norm_epsilon": { type: "f32", value: 1e-5 },
    "bert.attention.causal": { type: "bool", value: false },
    "bert.pooling_type": { type: "u32", value: 1 },
    "tokenizer.ggml.token_type_count": { type: "u32", value: 2 },
    "tokenizer.ggml.model": { type: "string", value: "bert" },
    "tokenizer.ggml.tokens": { type: "strings", value: tokens },
    "tokenizer.ggml.token_type": { type: "i32s", value: tokens.map((_, id) => (id < 5 ? 3 : 1)) },
    "tokenizer.ggml.bos_token_id": { type: "u32", value: 2 },
    "tokenizer.ggml.eos_token_id": { type: "u32", value: 3 },
    "tokenizer.ggml.unknown_token_id": { type: "u32", value: 1 },
    "tokenizer.ggml.seperator_token_id": { type: "u32", value: 3 },
    "tokenizer.ggml.padding_token_id": { type: "u32", value: 0 },
    "tokenizer.ggml.cls_token_id": { type: "u32", value: 2 },
    "tokenizer.ggml.mask_token_id": { type: "u32", value: 4 },
  };
  return write(metadata, [
    filled("token_embd.weight", [dim, tokens.length]),
    filled("token_types.weight", [dim, 2]),
    filled("position_embd.weight", [dim, context]),
    ...norm("token_embd_norm"),
    ...Array.from({ length: layers }, (_, index) => layer(`blk.${index}.`)).flat(),
  ]);
}
