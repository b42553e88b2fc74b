/*
 * Writes GGUF v3, the file format of llama.cpp: a header of typed metadata, a list of tensors, and their data.
 * Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */

/** A metadata value with its GGUF type. */
export type GgufValue =
  | { readonly type: "u32"; readonly value: number }
  | { readonly type: "f32"; readonly value: number }
  | { readonly type: "bool"; readonly value: boolean }
  | { readonly type: "string"; readonly value: string }
  | { readonly type: "strings"; readonly value: readonly string[] }
  | { readonly type: "i32s"; readonly value: readonly number[] };

/** Metadata by key, in the order of the file. */
export type GgufMetadata = Readonly<Record<string, GgufValue>>;

/** How the numbers of a tensor are stored. `Q8_0`: blocks of 32 signed bytes with one half-precision scale. */
export type GgufEncoding = "F32" | "F16" | "Q8_0";

/** A tensor to write. `data` has as many numbers as the product of `shape`. */
export interface GgufTensor {
  readonly name: string;
  /** Sizes with the fastest dimension first, so a matrix is [columns, rows]. */
  readonly shape: readonly number[];
  readonly encoding: GgufEncoding;
  readonly data: Float32Array;
}

/** Type numbers of metadata values in the format. */
export const valueTypes = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9 } as const;

/** Type numbers of tensor encodings in the format. */
export const encodings = { F32: 0, F16: 1, Q8_0: 8 } as const satisfies Record<GgufEncoding, number>;

/** Tensor data starts at multiples of this many bytes. */
export const alignment = 32;

/** Numbers in one block of Q8_0. */
export const blockLength = 32;

/** The bytes of a GGUF file. Throws a RangeError when a tensor's data does not fit its shape or encoding. */
export function writeGguf(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Buffer {
  const pairs = Object.entries(metadata).map(([key, value]): RawPair => [key, ...rawValue(value)]);
  const bodies = tensors.map((tensor) => pad(tensorBytes(tensor), alignment));
  const places: RawTensor[] = [];
  let offset = 0;
  for (const [index, { name, shape, encoding }] of tensors.entries()) {
    places.push({ name, dimensions: shape, type: encodings[encoding], offset });
    offset += bodies[index]?.length ?? 0;
  }
  return assembleGguf({ pairs, tensors: places, data: Buffer.concat(bodies) });
}

/** A metadata pair whose value is encoded already: key, type number, value. */
export type RawPair = readonly [key: string, type: number, value: Buffer];

/** A tensor as the file's header lists it. */
export interface RawTensor {
  readonly name: string;
  /** Fastest dimension first. */
  readonly dimensions: readonly number[];
  readonly type: number;
  /** Where its data starts, counted from the start of all data. */
  readonly offset: number;
}

/** A file in encoded parts. Nothing holds them to each other, so that a test can write a file that lies. */
export interface GgufParts {
  readonly pairs: readonly RawPair[];
  readonly tensors: readonly RawTensor[];
  readonly data: Buffer;
  readonly version?: number;
  readonly alignment?: number;
}

/** Header, padding and data. */
export function assembleGguf({ pairs, tensors, data, version = 3, alignment: step = alignment }: GgufParts): Buffer {
  const header = Buffer.concat([
    Buffer.from("GGUF"),
    u32(version),
    u64(tensors.length),
    u64(pairs.length),
    ...pairs.flatMap(([key, type, value]) => [text(key), u32(type), value]),
    ...tensors.flatMap(({ name, dimensions, type, offset }) => [
      text(name),
      u32(dimensions.length),
      ...dimensions.map(u64),
      u32(type),
      u64(offset),
    ]),
  ]);
  return Buffer.concat([pad(header, step), data]);
}

function rawValue(entry: GgufValue): [type: number, value: Buffer] {
  if (entry.type === "u32") return [valueTypes.u32, u32(entry.value)];
  if (entry.type === "f32") return [valueTypes.f32, Buffer.from(Float32Array.of(entry.value).buffer)];
  if (entry.type === "bool") return [valueTypes.bool, Buffer.of(entry.value ? 1 : 0)];
  if (entry.type === "string") return [valueTypes.string, text(entry.value)];
  if (entry.type === "strings") return [valueTypes.array, texts(entry.value)];
  const items = Buffer.from(Int32Array.from(entry.value).buffer);
  return [valueTypes.array, Buffer.concat([u32(valueTypes.i32), u64(entry.value.length), items])];
}

function tensorBytes({ name, shape, encoding, data }: GgufTensor): Buffer {
  const size = shape.reduce((product, length) => product * length, 1);
  if (size !== data.length) throw new RangeError(`${name} has ${data.length} numbers for a shape of ${size}`);
  if (encoding === "F32") return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  if (encoding === "F16") return Buffer.from(Uint16Array.from(data, halfBits).buffer);
  if ((shape[0] ?? 0) % blockLength !== 0) throw new RangeError(`${name}: rows of ${shape[0]} do not fit Q8_0`);
  return quantise(data);
}

/** Q8_0: per block of 32 a scale in half precision and 32 signed bytes; number = scale * byte. */
function quantise(data: Float32Array): Buffer {
  const bytes = Buffer.alloc((data.length / blockLength) * (blockLength + 2));
  for (let at = 0, to = 0; at < data.length; at += blockLength, to += blockLength + 2) {
    const block = data.subarray(at, at + blockLength);
    const largest = block.reduce((most, number) => Math.max(most, Math.abs(number)), 0);
    const scale = largest / 127;
    bytes.writeUInt16LE(halfBits(scale), to);
    for (const [index, number] of block.entries()) {
      bytes.writeInt8(scale === 0 ? 0 : Math.round(number / scale), to + 2 + index);
    }
  }
  return bytes;
}

const single = new Float32Array(1);
const singleBits = new Uint32Array(single.buffer);

/** The bits of a number in half precision (IEEE 754 binary16), rounded to the nearest; too large becomes infinity. */
export function halfBits(number: number): number {
  single[0] = number;
  const bits = singleBits[0] ?? 0;
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x47800000) return sign | 0x7c00;
  // Below the smallest normal half, the value is a whole number of 2^-24.
  if (magnitude < 0x38800000) return sign | Math.round(Math.abs(single[0] ?? 0) * 2 ** 24);
  const rounded = magnitude + 0xfff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

/** Length and bytes, as GGUF writes a string. */
export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** The value of an array of strings, as a vocabulary is. */
export function texts(values: readonly string[]): Buffer {
  return Buffer.concat([u32(valueTypes.string), u64(values.length), ...values.map(text)]);
}

/** Little-endian 32-bit number. */
export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** Little-endian 64-bit number. */
export function u64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function pad(bytes: Buffer, step: number): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((step - (bytes.length % step)) % step)]);
}
