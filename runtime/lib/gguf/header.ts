import { PenstockError } from "../../contracts/errors.ts";
import { openModelFile } from "../model-file.ts";
import { GgufFault, GgufReader } from "./reader.ts";
import { tensorTypes } from "./tensor-types.ts";

/** A tensor of a GGUF file. */
export interface GgufTensor {
  /** Sizes with the fastest dimension first: a matrix is [columns, rows]. */
  readonly shape: readonly number[];
  /** Its number in `enum ggml_type`. */
  readonly type: number;
}

/** What the header of a GGUF file says. */
export interface GgufHeader {
  readonly version: number;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  /** `general.architecture`, such as `llama`; null in shards after the first, which repeat no metadata. */
  readonly architecture: string | null;
  /** `general.type`: `model`, `adapter`; null in most models. */
  readonly type: string | null;
  /** `adapter.type` of an adapter: `lora`. */
  readonly adapterType: string | null;
  /** `general.base_model.0.name`: what the model was made from. */
  readonly baseModel: string | null;
  /** Weights in all tensors of this file. */
  readonly parameters: number;
  readonly fileBytes: number;
  /** Length that the tensors need; a file shorter than this was cut. */
  readonly neededBytes: number;
}

const magic = 0x46554747; // "GGUF", little-endian
const maxTensors = 1 << 17;
const maxPairs = 1 << 16;
const maxArrayItems = 1 << 24;
const maxArrayDepth = 4;
const maxDimensions = 4; // GGML_MAX_DIMS
const maxTensorNameBytes = 63; // GGML_MAX_NAME, which counts a 0 at the end
const maxTextBytes = 4096;
const maxAlignment = 1 << 20;

/** Sizes of the metadata types that have one; 8 is a string, 9 an array. */
const scalarBytes = new Map([
  [0, 1],
  [1, 1],
  [2, 2],
  [3, 2],
  [4, 4],
  [5, 4],
  [6, 4],
  [7, 1],
  [10, 8],
  [11, 8],
  [12, 8],
]);
const u32Type = 4;
const f32Type = 6;
const stringType = 8;
const arrayType = 9;

/**
 * Reads the header of a GGUF file and checks that the file is whole: magic, version 2 or 3, bounded counts, and every
 * tensor inside the file's length. Finds a file that was cut short without any checksum, and damage that would end a
 * process inside llama.cpp. `name` is what messages call the file. Throws `model_file_invalid`.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
export async function readGgufHeader(path: string, name = path): Promise<GgufHeader> {
  await using handle = await openModelFile(path, name);
  const { size } = await handle.stat();
  try {
    const header = await readHeader(new GgufReader(handle, size), size);
    if (header.neededBytes > size) {
      throw new GgufFault(`its tensors need ${header.neededBytes} bytes, but it has ${size}: it was cut short`);
    }
    return header;
  } catch (thrown) {
    if (!(thrown instanceof GgufFault)) throw thrown;
    throw new PenstockError(
      "model_file_invalid",
      `${name} is not a whole GGUF file: ${thrown.message}. Fetch or upload it again, or convert the model again.`,
      { cause: thrown },
    );
  }
}

async function readHeader(reader: GgufReader, fileBytes: number): Promise<GgufHeader> {
  if ((await reader.u32()) !== magic) throw new GgufFault("it does not begin with GGUF");
  const version = await reader.u32();
  if (version !== 2 && version !== 3) throw new GgufFault(`its version is ${version}, and only 2 and 3 are known`);
  const tensorCount = await reader.u64("number of tensors", maxTensors);
  const { alignment, texts } = await readMetadata(reader);
  const tensors = new Map<string, GgufTensor>();
  let dataBytes = 0;
  let parameters = 0;
  for (let index = 0; index < tensorCount; index += 1) {
    const tensor = await readTensor(reader, alignment);
    if (tensors.has(tensor.name)) throw new GgufFault(`it has two tensors with the name ${tensor.name}`);
    tensors.set(tensor.name, { shape: tensor.shape, type: tensor.type });
    dataBytes = Math.max(dataBytes, tensor.end);
    parameters += tensor.elements;
  }
  const dataStart = Math.ceil(reader.position / alignment) * alignment;
  return {
    version,
    tensors,
    architecture: texts.get("general.architecture") ?? null,
    type: texts.get("general.type") ?? null,
    adapterType: texts.get("adapter.type") ?? null,
    baseModel: texts.get("general.base_model.0.name") ?? null,
    parameters,
    fileBytes,
    neededBytes: dataBytes === 0 ? reader.position : dataStart + dataBytes,
  };
}

const wantedTexts: ReadonlySet<string> = new Set([
  "general.architecture",
  "general.type",
  "adapter.type",
  "general.base_model.0.name",
]);

/** Values that llama.cpp reads without a look at their type: another one would end the process. */
const fixedTypes: ReadonlyMap<string, number> = new Map([
  ["general.alignment", u32Type],
  ["adapter.lora.alpha", f32Type],
  ...[...wantedTexts].map((key) => [key, stringType] as const),
]);

async function readMetadata(reader: GgufReader): Promise<{ alignment: number; texts: Map<string, string> }> {
  const pairs = await reader.u64("number of metadata pairs", maxPairs);
  let alignment = 32;
  const texts = new Map<string, string>();
  for (let pair = 0; pair < pairs; pair += 1) {
    const key = await reader.string("metadata key");
    const type = await reader.u32();
    if ((fixedTypes.get(key) ?? type) !== type) throw new GgufFault(`its ${key} is of the wrong type`);
    if (key === "general.alignment") alignment = alignmentOf(await reader.u32());
    else if (wantedTexts.has(key)) texts.set(key, await reader.string(key, maxTextBytes));
    else await skipValue(reader, { type, depth: 0 });
  }
  return { alignment, texts };
}

function alignmentOf(value: number): number {
  // ggml takes multiples of 8 only as powers of two.
  if (value >= 1 && value <= maxAlignment && (value & (value - 1)) === 0) return value;
  throw new GgufFault(`its alignment is ${value}`);
}

async function skipValue(reader: GgufReader, { type, depth }: { type: number; depth: number }): Promise<void> {
  const bytes = scalarBytes.get(type);
  if (bytes !== undefined) return reader.skip(bytes);
  if (type === stringType) return reader.skipString();
  if (type !== arrayType) throw new GgufFault(`it has metadata of the unknown type ${type}`);
  if (depth >= maxArrayDepth) throw new GgufFault("its metadata nests arrays too deeply");
  const itemType = await reader.u32();
  const items = await reader.u64("number of items in an array", maxArrayItems);
  const itemBytes = scalarBytes.get(itemType);
  if (itemBytes !== undefined) return reader.skip(items * itemBytes);
  // Each item costs at least eight bytes of the file, so the loop is bounded by the header's limit too.
  for (let item = 0; item < items; item += 1) await skipValue(reader, { type: itemType, depth: depth + 1 });
}

interface TensorPlace extends GgufTensor {
  readonly name: string;
  readonly elements: number;
  /** Where it ends, counted from the start of the data. */
  readonly end: number;
}

async function readTensor(reader: GgufReader, alignment: number): Promise<TensorPlace> {
  const name = await reader.string("tensor name", maxTensorNameBytes);
  const dimensions = await reader.u32();
  if (dimensions > maxDimensions) throw new GgufFault(`the tensor ${name} has ${dimensions} dimensions`);
  const shape: number[] = [];
  for (let dimension = 0; dimension < dimensions; dimension += 1) shape.push(await reader.u64("tensor dimension"));
  const elements = shape.reduce((product, size) => product * size, 1);
  const type = await reader.u32();
  const packing = tensorTypes.get(type);
  const offset = await reader.u64("tensor offset");
  if (offset % alignment !== 0) throw new GgufFault(`the tensor ${name} is not aligned`);
  // A type that is newer than this table: the engine knows it or refuses it; here only its start can be checked.
  const bytes = packing === undefined ? 1 : Math.ceil(elements / packing.blockElements) * packing.blockBytes;
  const end = offset + bytes;
  if (Number.isSafeInteger(end)) return { name, shape, type, elements, end };
  throw new GgufFault(`the tensor ${name} is impossibly large`);
}
