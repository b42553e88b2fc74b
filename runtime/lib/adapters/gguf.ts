import { basename, dirname, join } from "node:path";
import { readGgufHeader, type GgufHeader, type GgufTensor } from "../gguf/header.ts";
import type { AdapterFiles, CheckedAdapter } from "./check.ts";
import { checkRank, ofAdapter, refusal } from "./refusal.ts";

type Shape = readonly number[];

interface Pair {
  a?: Shape;
  b?: Shape;
}

/** F32, F16, Q8_0, BF16: what convert_lora_to_gguf.py writes. llama.cpp would end the process over a type without arithmetic. */
const loraTypes: ReadonlySet<number> = new Set([0, 1, 8, 30]);

const shardName = /^(.*)-00001-of-(\d{5})\.gguf$/;
const otherModel = "Name an adapter that was trained on this model.";

/**
 * Checks what `llama_adapter_lora_init_impl` checks in llama.cpp's src/llama-adapter.cpp, the rank, and what llama.cpp
 * finds out by an assertion in the first request: numbers of a type, ranks or experts that do not multiply.
 */
export async function checkGgufAdapter(files: Omit<AdapterFiles, "format">): Promise<CheckedAdapter> {
  const { adapterPath, modelPath, maxRank } = files;
  const adapter = await ofAdapter(readGgufHeader(adapterPath, basename(adapterPath)));
  const shards = await readShards(modelPath);
  checkKind(adapter, shards[0]?.architecture ?? null);
  const model = new Map(shards.flatMap(({ tensors }) => [...tensors]));
  const pairs = pairsOf(adapter);
  for (const [name, pair] of pairs) checkPair(name, { pair, target: model.get(name)?.shape });
  const rank = [...pairs].reduce((most, [name, pair]) => Math.max(most, rankOf(name, pair)), 0);
  checkRank(rank, maxRank);
  return { rank, baseModel: adapter.baseModel };
}

async function readShards(path: string): Promise<GgufHeader[]> {
  const name = basename(path);
  const [, stem = "", total = "1"] = shardName.exec(name) ?? [];
  const headers = [await readGgufHeader(path, name)];
  for (let part = 2; part <= Number(total); part += 1) {
    const shard = `${stem}-${String(part).padStart(5, "0")}-of-${total}.gguf`;
    headers.push(await readGgufHeader(join(dirname(path), shard), shard));
  }
  return headers;
}

function checkKind({ type, adapterType, architecture }: GgufHeader, modelArchitecture: string | null): void {
  if (type !== "adapter") {
    throw refusal(
      "The file is a full model, not an adapter: name it as a model's source, or make an adapter with llama.cpp's " +
        "convert_lora_to_gguf.py.",
    );
  }
  if (adapterType !== "lora") {
    throw refusal(`The adapter is of type ${clipped(adapterType)}, and only lora can be served.`);
  }
  if (architecture !== modelArchitecture) {
    throw refusal(
      `The adapter is for models of architecture ${clipped(architecture)}, and this model is ` +
        `${clipped(modelArchitecture)}. ${otherModel}`,
    );
  }
}

function pairsOf({ tensors }: GgufHeader): Map<string, Pair> {
  const pairs = new Map<string, Pair>();
  for (const [name, tensor] of tensors) {
    const [, target, side] = /^(.+)\.lora_([ab])$/.exec(name) ?? [];
    // llama.cpp leaves norms out and goes on.
    if (target === undefined && name.endsWith("_norm.weight")) continue;
    if (target === undefined) throw refusal(`The adapter has ${name}, which is no tensor of a LoRA: convert it again.`);
    pairs.set(target, { ...pairs.get(target), [side === "a" ? "a" : "b"]: shapeOf(name, tensor) });
  }
  if (pairs.size === 0) throw refusal("The adapter has no tensors: convert it again.");
  return pairs;
}

function shapeOf(name: string, { shape, type }: GgufTensor): Shape {
  if (loraTypes.has(type)) return shape;
  throw refusal(`The adapter's ${name} is of ggml type ${type}: convert it again, to f32, f16, bf16 or q8_0.`);
}

function checkPair(name: string, { pair, target }: { pair: Pair; target: Shape | undefined }): void {
  const { a, b } = pair;
  if (a === undefined || b === undefined) {
    throw refusal(`The adapter has only one of the two tensors of ${name}: convert it again.`);
  }
  if (target === undefined) throw refusal(`The adapter changes ${name}, which this model does not have. ${otherModel}`);
  const [columns, rows] = isEmbedding(name) ? [size(b, 1), size(a, 1)] : [size(a, 0), size(b, 1)];
  if (columns !== size(target, 0) || rows !== size(target, 1)) {
    throw refusal(
      `The adapter was trained on a model whose ${name} is ${columns} x ${rows}; here it is ` +
        `${size(target, 0)} x ${size(target, 1)}. ${otherModel}`,
    );
  }
  if (size(a, 2) !== size(target, 2) || size(b, 2) !== size(target, 2)) {
    throw refusal(`The adapter has ${size(a, 2)} experts in ${name}; this model has ${size(target, 2)}. ${otherModel}`);
  }
}

/** For embeddings, A and B have changed places and B is not transposed. */
function isEmbedding(name: string): boolean {
  return name.endsWith("token_embd.weight");
}

function rankOf(name: string, { a = [], b = [] }: Pair): number {
  const [rank, other] = isEmbedding(name) ? [size(a, 0), size(b, 0)] : [size(a, 1), size(b, 0)];
  if (rank === other && rank > 0) return rank;
  throw refusal(`The adapter's two tensors of ${name} have ranks ${rank} and ${other}: convert it again.`);
}

function size(shape: Shape, dimension: number): number {
  return shape[dimension] ?? 1;
}

function clipped(text: string | null): string {
  return text?.slice(0, 64) ?? "an unnamed one";
}
