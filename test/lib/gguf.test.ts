import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { text, texts, u32, u64 } from "../../runtime/demo/gguf.ts";
import { readGgufHeader } from "../../runtime/lib/gguf/header.ts";
import { tinyLora, tinyModel } from "../embedded/tiny-gguf.ts";
import { gguf } from "../support/gguf-bytes.ts";

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "penstock-gguf-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function check(bytes: Buffer) {
  const path = join(directory, "m.gguf");
  await writeFile(path, bytes);
  return readGgufHeader(path, "m.gguf");
}

describe("readGgufHeader", () => {
  it("reads what a whole file says", async () => {
    const bytes = gguf();
    expect(await check(bytes)).toEqual({
      version: 3,
      tensors: new Map([["t", { shape: [16], type: 0 }]]),
      architecture: "llama",
      type: null,
      adapterType: null,
      baseModel: null,
      parameters: expect.any(Number),
      fileBytes: bytes.length,
      neededBytes: bytes.length,
    });
    expect(await check(tinyModel())).toMatchObject({ parameters: 116_544, fileBytes: 472_448 });
    expect(await check(tinyLora())).toMatchObject({ architecture: "llama", type: "adapter", adapterType: "lora" });
  });

  it("tells a missing file and a folder apart", async () => {
    await expect(readGgufHeader(join(directory, "gone.gguf"))).rejects.toThrow("there is no such file");
    await expect(readGgufHeader(directory)).rejects.toThrow("is not a file");
  });

  it("answers every flipped byte of a header with a header or a clear error", async () => {
    const original = tinyModel();
    const outcomes: unknown[] = [];
    for (let at = 0; at < 9000; at += 29) {
      const bytes = Buffer.from(original);
      bytes[at] = (bytes[at] ?? 0) ^ 0xff;
      outcomes.push(await check(bytes).catch((thrown: unknown) => thrown));
    }
    expect(outcomes.filter((outcome) => outcome instanceof PenstockError).length).toBeGreaterThan(25);
    expect(outcomes.filter((outcome) => outcome instanceof Error && !(outcome instanceof PenstockError))).toEqual([]);
  });

  it("reads every kind of metadata, a vocabulary longer than its window, and other alignments", async () => {
    const vocabulary = Array.from({ length: 200_000 }, (_, index) => `token-${index}`);
    const bytes = gguf({
      version: 2,
      alignment: 64,
      pairs: [
        ["general.alignment", 4, u32(64)],
        ["small", 0, Buffer.from([1])],
        ["flag", 7, Buffer.from([1])],
        ["half", 2, Buffer.alloc(2)],
        ["big", 10, u64(7)],
        ["tokens", 9, texts(vocabulary)],
        ["scores", 9, Buffer.concat([u32(6), u64(200_000), Buffer.alloc(800_000)])],
        ["nested", 9, Buffer.concat([u32(9), u64(1), texts(["a"])])],
        ["general.architecture", 8, text("qwen3")],
      ],
      tensors: [
        { name: "q", dimensions: [64, 2], type: 8, offset: 0 },
        { name: "f", dimensions: [], type: 0, offset: 192 },
      ],
      data: Buffer.alloc(196),
    });
    expect(await check(bytes)).toMatchObject({
      architecture: "qwen3",
      tensors: new Map([
        ["q", { shape: [64, 2], type: 8 }],
        ["f", { shape: [], type: 0 }],
      ]),
      neededBytes: bytes.length,
    });
  });

  it("finds every single cut, wherever it is", async () => {
    const bytes = gguf();
    for (let length = 0; length < bytes.length; length += 1) {
      await expect(check(bytes.subarray(0, length)), `cut to ${length} bytes`).rejects.toMatchObject({
        code: "model_file_invalid",
      });
    }
  });

  it("finds a cut inside the last block of a quantised tensor", async () => {
    const whole = gguf({ tensors: [{ name: "q", dimensions: [64], type: 8, offset: 0 }], data: Buffer.alloc(68) });
    await expect(check(whole)).resolves.toBeDefined();
    await expect(check(whole.subarray(0, -1))).rejects.toThrow(/cut short/);
  });

  it.each<[string, Buffer, RegExp]>([
    ["something else", Buffer.from("<html>not found</html>"), /does not begin with GGUF/],
    ["version 1", gguf({ version: 1 }), /version is 1/],
    ["a big-endian file", gguf({ version: 0x03000000 }), /version/],
    ["too many tensors", Buffer.concat([Buffer.from("GGUF"), u32(3), u64(1n << 60n), u64(0)]), /number of tensors/],
    ["too many pairs", Buffer.concat([Buffer.from("GGUF"), u32(3), u64(0), u64(1n << 63n)]), /metadata pairs/],
    [
      "a key without end",
      Buffer.concat([Buffer.from("GGUF"), u32(3), u64(0), u64(1), u64(1 << 20)]),
      /inside its header/,
    ],
    ["an endless string", gguf({ pairs: [["k", 8, u64(2n ** 64n - 1n)]] }), /length of a string/],
    ["an endless array", gguf({ pairs: [["k", 9, Buffer.concat([u32(10), u64(1n << 40n)])]] }), /items in an array/],
    ["an unknown type", gguf({ pairs: [["k", 99, Buffer.alloc(0)]] }), /unknown type 99/],
    ["a strange alignment", gguf({ pairs: [["general.alignment", 4, u32(33)]] }), /alignment is 33/],
    ["an alignment that is a text", gguf({ pairs: [["general.alignment", 8, text("32")]] }), /general.alignment is of/],
    [
      "a scale that is no f32",
      gguf({ pairs: [["adapter.lora.alpha", 4, u32(16)]] }),
      /adapter.lora.alpha is of the wrong/,
    ],
    ["no alignment", gguf({ pairs: [["general.alignment", 4, u32(0)]] }), /alignment is 0/],
    [
      "many dimensions",
      gguf({ tensors: [{ name: "t", dimensions: [1, 1, 1, 1, 1], type: 0, offset: 0 }] }),
      /5 dimensions/,
    ],
    ["an offset past the end", gguf({ tensors: [{ name: "t", dimensions: [1], type: 0, offset: 4096 }] }), /cut short/],
    [
      "two tensors of one name",
      gguf({
        tensors: [
          { name: "t", dimensions: [1], type: 0, offset: 0 },
          { name: "t", dimensions: [1], type: 0, offset: 32 },
        ],
      }),
      /two tensors with the name t/,
    ],
    [
      "a tensor name that ggml has no room for",
      gguf({ tensors: [{ name: "t".repeat(64), dimensions: [1], type: 0, offset: 0 }] }),
      /length of a tensor name/,
    ],
    ["an odd offset", gguf({ tensors: [{ name: "t", dimensions: [1], type: 0, offset: 3 }] }), /not aligned/],
    [
      "a tensor larger than numbers go",
      gguf({ tensors: [{ name: "t", dimensions: [2 ** 52, 2 ** 52, 2 ** 52], type: 0, offset: 0 }] }),
      /impossibly large/,
    ],
  ])("refuses %s", async (_, bytes, words) => {
    await expect(check(bytes)).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringMatching(words),
    });
  });

  it("refuses arrays in arrays in arrays", async () => {
    const nest = (depth: number): Buffer => (depth === 0 ? u32(9) : Buffer.concat([u32(9), u64(1), nest(depth - 1)]));
    await expect(check(gguf({ pairs: [["k", 9, nest(200)]] }))).rejects.toThrow(/nests arrays too deeply/);
  });
});
