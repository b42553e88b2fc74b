import type { FileHandle } from "node:fs/promises";
import { z } from "zod";
import { PenstockError } from "../../contracts/errors.ts";
import { openModelFile } from "../model-file.ts";

/** A tensor of a safetensors file. */
export interface SafetensorsTensor {
  readonly dtype: Dtype;
  /** As PyTorch has it: a matrix is [rows, columns]. */
  readonly shape: readonly number[];
}

/** What the header of a safetensors file says. */
export interface SafetensorsHeader {
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  /** Numbers in all tensors of this file. */
  readonly parameters: number;
  readonly fileBytes: number;
}

/** Bits of one element; the types of `safetensors/src/tensor.rs`, where an unknown one is refused too. */
const dtypeBits = {
  F4: 4,
  F6_E2M3: 6,
  F6_E3M2: 6,
  BOOL: 8,
  U8: 8,
  I8: 8,
  F8_E5M2: 8,
  F8_E4M3: 8,
  F8_E8M0: 8,
  F8_E4M3FNUZ: 8,
  F8_E5M2FNUZ: 8,
  I16: 16,
  U16: 16,
  F16: 16,
  BF16: 16,
  I32: 32,
  U32: 32,
  F32: 32,
  C64: 64,
  F64: 64,
  I64: 64,
  U64: 64,
} as const;

/** How a tensor's numbers are stored. */
export type Dtype = keyof typeof dtypeBits;

const lengthBytes = 8;
/** The reference takes 100 MB; the longest headers of real files, with 100 000 tensors, have under 20 MiB. */
const maxHeaderBytes = 32 * 2 ** 20;
const maxDimensions = 16;
const maxKeys = 1 << 21; // four a tensor

const size = z.int().nonnegative(); // at most 2 ** 53 - 1
const tensorInfo = z.strictObject({
  dtype: z.string().refine((dtype): dtype is Dtype => Object.hasOwn(dtypeBits, dtype)),
  shape: z.array(size).max(maxDimensions),
  data_offsets: z.tuple([size, size]),
});
const tensorKeys = 1 + Object.keys(tensorInfo.shape).length;
const metadataKey = "__metadata__";
const metadata = z.record(z.string(), z.string());
const utf8 = new TextDecoder("utf-8", { fatal: true });
const openBrace = 0x7b;

type Place = SafetensorsTensor & { readonly name: string; readonly start: number; readonly end: number };

/** What is wrong with a file, in words for people. */
class SafetensorsFault extends Error {}

/**
 * Reads the header of a safetensors file and checks what the reference implementation checks: the tensors fill the file
 * from the first byte after the header to the last, without hole or overlap, each as long as its type and shape say. So it
 * finds a file that was cut short without any checksum. `name` is what messages call the file. Throws `model_file_invalid`.
 * Format: https://github.com/huggingface/safetensors#format and `validate` in safetensors/src/tensor.rs
 */
export async function readSafetensorsHeader(path: string, name = path): Promise<SafetensorsHeader> {
  await using handle = await openModelFile(path, name);
  const { size: fileBytes } = await handle.stat();
  try {
    const json = await readJson(handle, fileBytes);
    const places = parseHeader(decode(json));
    checkLayout(places, fileBytes - lengthBytes - json.length);
    const parameters = places.reduce((sum, { shape }) => sum + elements(shape), 0);
    return { tensors: new Map(places.map((place) => [place.name, place])), parameters, fileBytes };
  } catch (thrown) {
    if (!(thrown instanceof SafetensorsFault)) throw thrown;
    throw new PenstockError(
      "model_file_invalid",
      `${name} is not a whole safetensors file: ${thrown.message}. Fetch or upload it again, or save it again.`,
      { cause: thrown },
    );
  }
}

async function readJson(handle: FileHandle, fileBytes: number): Promise<Buffer> {
  const prefix = await readExactly(handle, { start: 0, length: lengthBytes });
  const length = prefix.readBigUInt64LE();
  if (length > BigInt(maxHeaderBytes)) {
    throw new SafetensorsFault(`its header of ${length} bytes is longer than the limit of ${maxHeaderBytes}`);
  }
  // Before memory is taken for it: a length costs a liar nothing.
  if (lengthBytes + Number(length) > fileBytes) throw new SafetensorsFault("it ends inside its header");
  const json = await readExactly(handle, { start: lengthBytes, length: Number(length) });
  if (json[0] !== openBrace) throw new SafetensorsFault("its header does not begin with {");
  return json;
}

async function readExactly(handle: FileHandle, { start, length }: { start: number; length: number }): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  const { bytesRead } = await handle.read(bytes, 0, length, start);
  if (bytesRead < length) throw new SafetensorsFault("it ends inside its header");
  return bytes;
}

function decode(bytes: Buffer): string {
  try {
    return utf8.decode(bytes);
  } catch {
    throw new SafetensorsFault("its header is not UTF-8");
  }
}

function parseHeader(json: string): Place[] {
  const written = countKeys(json);
  const header = parseObject(json);
  const { [metadataKey]: notes = {}, ...infos } = header;
  const texts = metadata.safeParse(notes).data;
  if (texts === undefined) throw new SafetensorsFault(`its ${metadataKey} is not a table of texts`);
  const places = Object.entries(infos).map(([name, info]) => placeOf(name, info));
  // JSON.parse keeps the last of two equal names and says nothing; another reader may keep the first.
  const noteKeys = Object.hasOwn(header, metadataKey) ? 1 + Object.keys(texts).length : 0;
  const keys = noteKeys + places.length * tensorKeys;
  if (written !== keys) throw new SafetensorsFault("its header has a name twice");
  return places.toSorted((a, b) => a.start - b.start || a.end - b.end);
}

function parseObject(json: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(json);
  } catch {
    throw new SafetensorsFault("its header is not JSON");
  }
  // JSON that begins with { is an object.
  return value as Record<string, unknown>;
}

function placeOf(name: string, info: unknown): Place {
  if (name.includes("\0")) throw new SafetensorsFault(`the name of the tensor ${quoted(name)} has a null byte`);
  const parsed = tensorInfo.safeParse(info);
  if (parsed.success) {
    const { dtype, shape, data_offsets: offsets } = parsed.data;
    return { name, dtype, shape, start: offsets[0], end: offsets[1] };
  }
  const where = parsed.error.issues[0]?.path[0];
  const what = where === undefined ? "is not {dtype, shape, data_offsets}" : `has no valid ${String(where)}`;
  throw new SafetensorsFault(`the tensor ${quoted(name)} ${what}`);
}

/**
 * Names in a header's JSON: outside of strings, a colon follows each and stands nowhere else. Throws for arrays and objects
 * where a header has none, and for too many names, before JSON.parse takes thirty times the text's memory for them.
 */
function countKeys(json: string): number {
  let keys = 0;
  let depth = 0;
  let inString = false;
  for (let at = 0; at < json.length; at += 1) {
    const character = json[at];
    if (character === '"') inString = !inString;
    else if (inString) at += character === "\\" ? 1 : 0;
    else if (character === ":") keys += 1;
    else if (character === "}" || character === "]") depth -= 1;
    else if (character === "{" || character === "[") {
      depth += 1;
      if (character === "{" ? depth > 2 : depth !== 3) throw new SafetensorsFault("its header nests what it may not");
    }
  }
  if (keys > maxKeys) throw new SafetensorsFault(`its header has ${keys} names, more than the limit of ${maxKeys}`);
  return keys;
}

/** Throws unless the tensors, in the order of their bytes, fill `dataBytes` without hole or overlap. */
function checkLayout(places: readonly Place[], dataBytes: number): void {
  let due = 0;
  for (const { name, dtype, shape, start, end } of places) {
    const tensor = `the tensor ${quoted(name)}`;
    if (start !== due) {
      throw new SafetensorsFault(`${tensor} begins at byte ${start}, not ${due}: tensors overlap or leave a hole`);
    }
    const bits = elements(shape) * dtypeBits[dtype];
    if (!Number.isSafeInteger(bits)) throw new SafetensorsFault(`${tensor} is impossibly large`);
    if (end - start !== bits / 8) {
      throw new SafetensorsFault(`${tensor}, ${dtype} of ${JSON.stringify(shape)}, cannot have ${end - start} bytes`);
    }
    due = end;
  }
  if (due > dataBytes)
    throw new SafetensorsFault(`its tensors need ${due} bytes and it has ${dataBytes}: it was cut short`);
  if (due < dataBytes) throw new SafetensorsFault(`it has ${dataBytes - due} bytes after its last tensor`);
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, length) => product * length, 1);
}

function quoted(name: string): string {
  return JSON.stringify(name.slice(0, 100));
}
