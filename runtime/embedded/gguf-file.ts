import { open, type FileHandle } from "node:fs/promises";
import { PenstockError } from "../contracts/errors.ts";

/** What the header of a GGUF file tells. */
export interface GgufHeader {
  readonly fileBytes: number;
  /** Weights in all tensors of this file. */
  readonly parameters: number;
  /** `general.architecture`, such as `llama`. */
  readonly architecture: string | undefined;
  /** `general.type`: `model`, `adapter`; models often leave it out. */
  readonly type: string | undefined;
}

/** Bytes of one value, by GGUF's value types: u8, i8, u16, i16, u32, i32, f32, bool, string, array, u64, i64, f64. */
const valueSizes = [1, 1, 2, 2, 4, 4, 4, 1, undefined, undefined, 8, 8, 8] as const;
const stringType = 8;
const arrayType = 9;

/** Weights per block and bytes per block of the tensor types whose size is checked, by ggml's type id. */
const tensorTypes: Readonly<Record<number, readonly [number, number]>> = {
  0: [1, 4],
  1: [1, 2],
  2: [32, 18],
  3: [32, 20],
  6: [32, 22],
  7: [32, 24],
  8: [32, 34],
  10: [256, 84],
  11: [256, 110],
  12: [256, 144],
  13: [256, 176],
  14: [256, 210],
  20: [32, 18],
  23: [256, 136],
  30: [1, 2],
};

/** More than any real file has; a damaged count must not become a loop of billions. */
const most = { tensors: 1_000_000, keys: 100_000, nameBytes: 65_535, dimensions: 4, typeId: 64 } as const;
const chunkBytes = 1 << 20;

/**
 * Reads and checks a GGUF header before llama.cpp sees the file, since a damaged one can end the process there.
 * Throws `model_file_invalid` with a message that names the file, what is wrong, and the remedy.
 */
export async function readGgufHeader(path: string): Promise<GgufHeader> {
  let file: FileHandle;
  try {
    file = await open(path, "r");
  } catch (cause) {
    const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
    const why = code === "ENOENT" ? "there is no such file; check the path" : `it cannot be opened (${code})`;
    throw new PenstockError("model_file_invalid", `Cannot read ${path}: ${why}.`, { cause });
  }
  try {
    const info = await file.stat();
    if (!info.isFile()) throw new PenstockError("model_file_invalid", `${path} is not a file; name a .gguf file.`);
    return await new HeaderReader(file, path, info.size).read();
  } finally {
    await file.close();
  }
}

class HeaderReader {
  readonly #file: FileHandle;
  readonly #path: string;
  readonly #size: number;
  #bytes = Buffer.alloc(0);
  #at = 0;

  constructor(file: FileHandle, path: string, size: number) {
    this.#file = file;
    this.#path = path;
    this.#size = size;
  }

  async read(): Promise<GgufHeader> {
    const magic = this.#size < 4 ? "" : (await this.#take(4)).toString("latin1");
    if (magic !== "GGUF") this.#fail("is not a GGUF file", "Name a .gguf file; other formats must be converted first");
    const version = await this.#u32();
    if (version !== 2 && version !== 3)
      this.#fail(`has GGUF version ${version}, not 2 or 3`, "Convert the model again");
    const tensorCount = await this.#count(most.tensors, "tensors");
    const keyCount = await this.#count(most.keys, "keys");
    const texts = new Map<string, string>();
    let alignment = 32;
    for (let index = 0; index < keyCount; index += 1) {
      const key = await this.#name();
      const value = await this.#value(await this.#u32());
      if (typeof value === "string") texts.set(key, value);
      if (key === "general.alignment" && typeof value === "number") alignment = value;
    }
    if (alignment < 1 || alignment > 1 << 20) this.#damaged(`an alignment of ${alignment}`);
    const parameters = await this.#tensors(tensorCount, alignment);
    return {
      fileBytes: this.#size,
      parameters,
      architecture: texts.get("general.architecture"),
      type: texts.get("general.type"),
    };
  }

  async #tensors(count: number, alignment: number): Promise<number> {
    let parameters = 0;
    let dataBytes = 0;
    for (let index = 0; index < count; index += 1) {
      const name = await this.#name();
      const dimensions = await this.#u32();
      if (dimensions > most.dimensions) this.#damaged(`a tensor of ${dimensions} dimensions`);
      let weights = 1;
      for (let d = 0; d < dimensions; d += 1) weights *= await this.#u64();
      const typeId = await this.#u32();
      const offset = await this.#u64();
      if (typeId > most.typeId || !Number.isSafeInteger(weights) || offset % alignment !== 0) {
        this.#damaged(`tensor ${JSON.stringify(name.slice(0, 60))}, whose description makes no sense`);
      }
      const [perBlock, blockBytes] = tensorTypes[typeId] ?? [weights, 0];
      parameters += weights;
      dataBytes = Math.max(dataBytes, offset + Math.ceil(weights / Math.max(1, perBlock)) * blockBytes);
    }
    const wanted = Math.ceil(this.#at / alignment) * alignment + dataBytes;
    if (wanted > this.#size) this.#cutShort(wanted);
    return parameters;
  }

  async #value(type: number): Promise<string | number | undefined> {
    if (type === stringType) return (await this.#take(await this.#u64())).toString("utf8");
    if (type === arrayType) return this.#array();
    const size = valueSizes[type];
    if (size === undefined) return this.#damaged(`a value of unknown type ${type}`);
    const bytes = await this.#take(size);
    return type === 4 ? bytes.readUInt32LE() : undefined;
  }

  async #array(): Promise<undefined> {
    const type = await this.#u32();
    const count = await this.#u64();
    const size = valueSizes[type];
    if (size !== undefined) await this.#skip(size * count);
    else if (type === stringType) for (let index = 0; index < count; index += 1) await this.#skip(await this.#u64());
    else this.#damaged(`a list of unknown type ${type}`);
  }

  async #name(): Promise<string> {
    const length = await this.#u64();
    if (length > most.nameBytes) this.#damaged(`a name of ${length} bytes`);
    return (await this.#take(length)).toString("utf8");
  }

  async #count(limit: number, what: string): Promise<number> {
    const count = await this.#u64();
    if (count > limit) this.#damaged(`${count} ${what}`);
    return count;
  }

  async #u32(): Promise<number> {
    return (await this.#take(4)).readUInt32LE();
  }

  async #u64(): Promise<number> {
    return Number((await this.#take(8)).readBigUInt64LE());
  }

  async #skip(length: number): Promise<void> {
    await this.#take(length);
  }

  async #take(length: number): Promise<Buffer> {
    const end = this.#at + length;
    if (end > this.#size) this.#cutShort(end);
    while (this.#bytes.length < end) {
      const chunk = Buffer.alloc(Math.min(Math.max(chunkBytes, this.#bytes.length), this.#size - this.#bytes.length));
      const { bytesRead } = await this.#file.read(chunk, 0, chunk.length, this.#bytes.length);
      if (bytesRead === 0) this.#cutShort(end);
      this.#bytes = Buffer.concat([this.#bytes, chunk.subarray(0, bytesRead)]);
    }
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  #cutShort(wanted: number): never {
    const promised = wanted > Number.MAX_SAFE_INTEGER ? "far more" : `${wanted}`;
    this.#fail(
      `is cut short or damaged: it has ${this.#size} bytes and its header promises ${promised}`,
      "Fetch it again",
    );
  }

  #damaged(what: string): never {
    this.#fail(`is damaged: its header tells of ${what}`, "Fetch it again");
  }

  #fail(what: string, remedy: string): never {
    throw new PenstockError("model_file_invalid", `${this.#path} ${what}. ${remedy}.`);
  }
}
