import { alignment, blockLength, encodings, valueTypes, type GgufEncoding } from "./gguf.ts";

/** A metadata value as it was read: arrays of text or of whole numbers, or one value. */
export type ReadValue = number | boolean | string | readonly string[] | readonly number[];

/** A tensor with its numbers as single precision. */
export interface ReadTensor {
  readonly name: string;
  readonly shape: readonly number[];
  readonly encoding: GgufEncoding;
  readonly data: Float32Array;
}

/** What is in a GGUF file, as far as gguf.ts writes it. */
export interface GgufContent {
  readonly metadata: ReadonlyMap<string, ReadValue>;
  readonly tensors: readonly ReadTensor[];
}

/** Reads a file that gguf.ts wrote. Throws an Error for anything else that the format allows. */
export function readGguf(bytes: Buffer): GgufContent {
  const cursor = new Cursor(bytes);
  if (cursor.bytes(4).toString() !== "GGUF" || cursor.u32() !== 3) throw new Error("not a GGUF v3 file");
  const [tensorCount, entryCount] = [cursor.u64(), cursor.u64()];
  const metadata = new Map<string, ReadValue>();
  for (let index = 0; index < entryCount; index += 1) metadata.set(cursor.text(), cursor.value());
  const places = Array.from({ length: tensorCount }, () => {
    const name = cursor.text();
    const shape = Array.from({ length: cursor.u32() }, () => cursor.u64());
    return { name, shape, encoding: encodingOf(cursor.u32()), offset: cursor.u64() };
  });
  const start = Math.ceil(cursor.at / alignment) * alignment;
  const tensors = places.map(({ offset, ...place }) => {
    const size = place.shape.reduce((product, length) => product * length, 1);
    return { ...place, data: decode(bytes.subarray(start + offset), place.encoding, size) };
  });
  return { metadata, tensors };
}

function encodingOf(id: number): GgufEncoding {
  const found = Object.entries(encodings).find(([, value]) => value === id);
  if (found === undefined) throw new Error(`unknown tensor encoding ${id}`);
  return found[0] as GgufEncoding; // the keys of a constant table
}

function decode(bytes: Buffer, encoding: GgufEncoding, size: number): Float32Array {
  if (encoding === "F32") return Float32Array.from({ length: size }, (_, index) => bytes.readFloatLE(index * 4));
  if (encoding === "F16") return Float32Array.from({ length: size }, (_, index) => half(bytes.readUInt16LE(index * 2)));
  return Float32Array.from({ length: size }, (_, index) => {
    const block = Math.floor(index / blockLength) * (blockLength + 2);
    return half(bytes.readUInt16LE(block)) * bytes.readInt8(block + 2 + (index % blockLength));
  });
}

function half(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Infinity : NaN;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

class Cursor {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  bytes(length: number): Buffer {
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }

  u32(): number {
    return this.bytes(4).readUInt32LE();
  }

  u64(): number {
    return Number(this.bytes(8).readBigUInt64LE());
  }

  text(): string {
    return this.bytes(this.u64()).toString("utf8");
  }

  value(): ReadValue {
    const type = this.u32();
    if (type === valueTypes.u32) return this.u32();
    if (type === valueTypes.f32) return this.bytes(4).readFloatLE();
    if (type === valueTypes.bool) return this.bytes(1).readUInt8() === 1;
    if (type === valueTypes.string) return this.text();
    if (type !== valueTypes.array) throw new Error(`unknown metadata type ${type}`);
    const items = this.u32();
    const length = this.u64();
    if (items === valueTypes.string) return Array.from({ length }, () => this.text());
    if (items === valueTypes.i32) return Array.from({ length }, () => this.bytes(4).readInt32LE());
    throw new Error(`unknown metadata array of ${items}`);
  }
}
