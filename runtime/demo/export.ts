import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { writeGguf, type GgufEncoding, type GgufMetadata, type GgufTensor } from "./gguf.ts";
import { controlTokens, markerTokens, type Vocabulary } from "./tokenizer.ts";

/* Makes the GGUF file and its checksum from what prepare.ts (vocabulary) and train.py (weights) left in a folder. */

/** `weights.json` of train.py: the shape of the model and, in the order of weights.f32, of its tensors. */
interface Weights {
  readonly model: {
    readonly dim: number;
    readonly layers: number;
    readonly heads: number;
    readonly ffn: number;
    readonly ropeBase: number;
    readonly epsilon: number;
  };
  readonly tensors: Readonly<Record<string, readonly number[]>>;
}

/** Tokens that the model was trained to see at once. */
const contextLength = 512;

/** Token types of the format: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h (LLAMA_TOKEN_TYPE_*). */
const tokenTypes = { normal: 1, control: 3, userDefined: 4 } as const;

/** Number types of a whole file in `general.file_type` (LLAMA_FTYPE_*). */
const fileTypes = { F32: 0, F16: 1, Q8_0: 7 } as const satisfies Record<GgufEncoding, number>;

/** LLAMA_POOLING_TYPE_MEAN: a text's embedding is the mean of its hidden states. */
const meanPooling = 1;

/** Metadata of the demo model. */
export function demoMetadata(vocabulary: Vocabulary, weights: Weights, encoding: GgufEncoding): GgufMetadata {
  const { model } = weights;
  const { tokens, merges } = vocabulary;
  const template = readFileSync(join(import.meta.dirname, "chat-template.jinja"), "utf8").trimEnd();
  const id = (token: string): GgufMetadata[string] => ({ type: "u32", value: tokens.indexOf(token) });
  return {
    "general.architecture": { type: "string", value: "llama" },
    "general.name": { type: "string", value: "Penstock Demo" },
    "general.license": { type: "string", value: "apache-2.0" },
    "general.file_type": { type: "u32", value: fileTypes[encoding] },
    "llama.vocab_size": { type: "u32", value: tokens.length },
    "llama.context_length": { type: "u32", value: contextLength },
    "llama.embedding_length": { type: "u32", value: model.dim },
    "llama.block_count": { type: "u32", value: model.layers },
    "llama.feed_forward_length": { type: "u32", value: model.ffn },
    "llama.attention.head_count": { type: "u32", value: model.heads },
    "llama.attention.head_count_kv": { type: "u32", value: model.heads },
    "llama.attention.layer_norm_rms_epsilon": { type: "f32", value: model.epsilon },
    "llama.rope.dimension_count": { type: "u32", value: model.dim / model.heads },
    "llama.rope.freq_base": { type: "f32", value: model.ropeBase },
    "llama.pooling_type": { type: "u32", value: meanPooling },
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: "gpt-2" },
    "tokenizer.ggml.tokens": { type: "strings", value: tokens },
    "tokenizer.ggml.token_type": { type: "i32s", value: tokens.map(tokenType) },
    "tokenizer.ggml.merges": { type: "strings", value: merges.map((pair) => pair.join(" ")) },
    "tokenizer.ggml.bos_token_id": id("<|im_start|>"),
    "tokenizer.ggml.eos_token_id": id("<|im_end|>"),
    "tokenizer.ggml.padding_token_id": id("<|pad|>"),
    "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
    "tokenizer.ggml.add_eos_token": { type: "bool", value: false },
    "tokenizer.chat_template": { type: "string", value: template },
  };
}

function tokenType(token: string): number {
  if (controlTokens.some((control) => control === token)) return tokenTypes.control;
  return markerTokens.some((marker) => marker === token) ? tokenTypes.userDefined : tokenTypes.normal;
}

/** Tensors with matrices in `encoding` and norms in single precision. PyTorch's [rows, columns] turn round. */
export function demoTensors(shapes: Weights["tensors"], numbers: Float32Array, encoding: GgufEncoding): GgufTensor[] {
  let at = 0;
  return Object.entries(shapes).map(([name, shape]) => {
    const size = shape.reduce((product, length) => product * length, 1);
    const data = numbers.subarray(at, at + size);
    at += size;
    return { name, shape: shape.toReversed(), encoding: shape.length === 1 ? "F32" : encoding, data };
  });
}

/** Reads `work`, writes the GGUF to `out` and a line for `sha256sum --check` beside it. Answers the size in bytes. */
export function exportModel(work: string, out: string, encoding: GgufEncoding): number {
  const vocabulary = JSON.parse(readFileSync(join(work, "vocabulary.json"), "utf8")) as Vocabulary; // prepare.ts wrote it
  const weights = JSON.parse(readFileSync(join(work, "weights.json"), "utf8")) as Weights; // train.py wrote it
  const bytes = readFileSync(join(work, "weights.f32"));
  const numbers = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
  const tensors = demoTensors(weights.tensors, numbers, encoding);
  const file = writeGguf(demoMetadata(vocabulary, weights, encoding), tensors);
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, file);
  writeFileSync(`${out}.sha256`, `${createHash("sha256").update(file).digest("hex")}  ${basename(out)}\n`);
  return file.length;
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      work: { type: "string", default: join(import.meta.dirname, ".work") },
      out: { type: "string", default: join(import.meta.dirname, "blobs/penstock-demo.gguf") },
      encoding: { type: "string", default: "Q8_0" },
    },
  });
  const encoding = (["F32", "F16", "Q8_0"] as const).find((name) => name === values.encoding);
  if (encoding === undefined) throw new Error(`--encoding is F32, F16 or Q8_0, not ${values.encoding}`);
  process.stdout.write(`${values.out}: ${exportModel(values.work, values.out, encoding)} bytes\n`);
}
