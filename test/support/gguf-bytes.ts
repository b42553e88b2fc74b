/** A GGUF tensor type as these tests need it: F32 is 0, Q8_0 is 8. */
interface Tensor {
  readonly name: string;
  readonly dimensions: readonly number[];
  readonly type: number;
  readonly offset: number;
}

/** One metadata pair, already encoded: its type and its value. */
export type Pair = readonly [key: string, type: number, value: Buffer];

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

/** Length and bytes, as GGUF writes a string. */
export function text(value: string): Buffer {
  const bytes = Buffer.from(value, "utf8");
  return Buffer.concat([u64(bytes.length), bytes]);
}

/** Array of strings, as a vocabulary is. */
export function texts(values: readonly string[]): Buffer {
  return Buffer.concat([u32(8), u64(values.length), ...values.map(text)]);
}

interface Parts {
  readonly version?: number;
  readonly pairs?: readonly Pair[];
  readonly tensors?: readonly Tensor[];
  readonly data?: Buffer;
  readonly alignment?: number;
}

/** A GGUF file from its parts; by default one small F32 tensor with `data` as its content. */
export function gguf(parts: Parts = {}): Buffer {
  const { version = 3, data = Buffer.alloc(64, 1), alignment = 32 } = parts;
  const pairs = parts.pairs ?? [["general.architecture", 8, text("llama")]];
  const tensors = parts.tensors ?? [{ name: "t", dimensions: [data.length / 4], type: 0, offset: 0 }];
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
  const padding = Buffer.alloc((alignment - (header.length % alignment)) % alignment);
  return Buffer.concat([header, padding, data]);
}
