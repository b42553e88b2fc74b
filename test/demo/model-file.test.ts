import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { writeText } from "../../runtime/demo/corpus/corpus.ts";
import { readGguf } from "../../runtime/demo/gguf-read.ts";
import { Tokenizer } from "../../runtime/demo/tokenizer.ts";

const path = new URL("../../runtime/demo/blobs/penstock-demo.gguf", import.meta.url);
const file = readFileSync(path);
const { metadata, tensors } = readGguf(file);
const tokens = metadata.get("tokenizer.ggml.tokens") as string[]; // readGguf answers arrays of text here
const types = metadata.get("tokenizer.ggml.token_type") as number[]; // and of numbers here

function typeOf(token: string): number | undefined {
  return types[tokens.indexOf(token)];
}

describe("the checked-in model file", () => {
  test("is the one of its checksum, and small", () => {
    const sum = createHash("sha256").update(file).digest("hex");
    expect(readFileSync(`${path.pathname}.sha256`, "utf8")).toBe(`${sum}  penstock-demo.gguf\n`);
    expect(file.length).toBeLessThan(10_000_000);
  });

  test("says what it is", () => {
    expect(metadata.get("general.name")).toBe("Penstock Demo");
    expect(metadata.get("general.architecture")).toBe("llama");
    expect(metadata.get("llama.context_length")).toBe(512);
    expect(metadata.get("llama.pooling_type")).toBe(1);
    expect(metadata.get("tokenizer.ggml.add_bos_token")).toBe(false);
  });

  test("hides the markers of a chat and shows those of a tool call", () => {
    expect(["<|pad|>", "<|im_start|>", "<|im_end|>"].map(typeOf)).toEqual([3, 3, 3]);
    expect(["<tool_call>", "</tool_call>"].map(typeOf)).toEqual([4, 4]);
    expect(tokens[metadata.get("tokenizer.ggml.eos_token_id") as number]).toBe("<|im_end|>"); // a u32
  });

  test("has this room's chat template", () => {
    const template = readFileSync(new URL("../../runtime/demo/chat-template.jinja", import.meta.url), "utf8").trimEnd();
    expect(metadata.get("tokenizer.chat_template")).toBe(template);
  });

  test("has the tensors of its shape, with numbers that learned something", () => {
    expect(tensors).toHaveLength(2 + 9 * Number(metadata.get("llama.block_count")));
    expect(tensors[0]).toMatchObject({ name: "token_embd.weight", shape: [192, tokens.length], encoding: "Q8_0" });
    for (const { data } of tensors) expect(data.every(Number.isFinite)).toBe(true);
    const output = tensors.find(({ name }) => name === "blk.0.attn_output.weight");
    expect(output?.data.some((number) => number !== 0)).toBe(true);
  });

  test("has a vocabulary that suits the corpus", () => {
    const merges = metadata.get("tokenizer.ggml.merges") as string[]; // as above
    const pairs = merges.map((merge) => merge.split(" ")).map(([left = "", right = ""]) => [left, right] as const);
    const tokenizer = new Tokenizer({ tokens, merges: pairs });
    const texts = Array.from({ length: 50 }, (_, index) => writeText(9, index));
    const lengths = texts.map((text) => tokenizer.encode(text).length);
    expect(texts.map((text) => tokenizer.decode(tokenizer.encode(text)))).toEqual(texts);
    expect(texts.join("").length / lengths.reduce((sum, length) => sum + length, 0)).toBeGreaterThan(2.5);
    expect(lengths.filter((length) => length <= 512).length).toBeGreaterThanOrEqual(45);
  });
});
