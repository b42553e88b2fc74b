import { describe, expect, test } from "vitest";
import { readGguf } from "../../runtime/demo/gguf-read.ts";
import { halfBits, writeGguf, type GgufMetadata, type GgufTensor } from "../../runtime/demo/gguf.ts";

const metadata: GgufMetadata = {
  "general.architecture": { type: "string", value: "llama" },
  "llama.block_count": { type: "u32", value: 4 },
  "llama.rope.freq_base": { type: "f32", value: 10_000 },
  "tokenizer.ggml.add_bos_token": { type: "bool", value: false },
  "tokenizer.ggml.tokens": { type: "strings", value: ["a", "Ġ", "ü"] },
  "tokenizer.ggml.token_type": { type: "i32s", value: [1, 3, -4] },
};

const numbers = Float32Array.from({ length: 128 }, (_, index) => Math.sin(index) * 3);

function tensor(encoding: GgufTensor["encoding"], shape: readonly number[] = [64, 2]): GgufTensor {
  return { name: `t.${encoding}`, shape, encoding, data: numbers };
}

function largestError(encoding: GgufTensor["encoding"]): number {
  const [read] = readGguf(writeGguf({}, [tensor(encoding)])).tensors;
  return Math.max(...numbers.map((number, index) => Math.abs(number - (read?.data[index] ?? Infinity))));
}

describe("writeGguf", () => {
  test("keeps every kind of metadata", () => {
    const read = readGguf(writeGguf(metadata, []));
    const expected = Object.entries(metadata).map(([key, { value }]) => [key, value]);
    expect([...read.metadata]).toEqual(expected);
  });

  test("keeps names and shapes of tensors that follow each other", () => {
    const { tensors } = readGguf(writeGguf(metadata, [tensor("Q8_0"), tensor("F32", [128]), tensor("F16")]));
    expect(tensors.map(({ name, shape }) => [name, shape])).toEqual([
      ["t.Q8_0", [64, 2]],
      ["t.F32", [128]],
      ["t.F16", [64, 2]],
    ]);
    expect(tensors[1]?.data).toEqual(numbers);
  });

  test("loses nothing in F32 and little in F16 and Q8_0", () => {
    expect(largestError("F32")).toBe(0);
    expect(largestError("F16")).toBeLessThan(0.002);
    expect(largestError("Q8_0")).toBeGreaterThan(0);
    expect(largestError("Q8_0")).toBeLessThan(0.02);
  });

  test("aligns tensor data to 32 bytes", () => {
    const file = writeGguf({ key: { type: "string", value: "odd" } }, [tensor("F32", [128])]);
    expect(file.length % 32).toBe(0);
    expect(file.readFloatLE(file.length - 4)).toBe(numbers[127]);
  });

  test("refuses data that does not fit", () => {
    expect(() => writeGguf({}, [tensor("F32", [3])])).toThrow(RangeError);
    expect(() => writeGguf({}, [tensor("Q8_0", [16, 8])])).toThrow("do not fit Q8_0");
  });
});

test("readGguf refuses another file", () => {
  expect(() => readGguf(Buffer.from("GGML 1234567890"))).toThrow("not a GGUF v3 file");
});

// From the table of half-precision examples in IEEE 754-2008.
test.each([
  [0, 0x0000],
  [1, 0x3c00],
  [-2, 0xc000],
  [0.1, 0x2e66],
  [65_504, 0x7bff],
  [1e6, 0x7c00],
  [2 ** -24, 0x0001],
  [2 ** -14, 0x0400],
  [1e-9, 0x0000],
  [1 / 3, 0x3555],
])("halfBits(%d)", (number, bits) => {
  expect(halfBits(number).toString(16)).toBe(bits.toString(16));
});
