import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readGgufHeader } from "../../runtime/embedded/gguf-file.ts";
import { temporaryFolder } from "./engine-process.ts";
import { tinyLora, tinyModel } from "./tiny-gguf.ts";

async function headerOf(bytes: Buffer) {
  await using folder = await temporaryFolder();
  const path = join(folder.path, "file.gguf");
  await writeFile(path, bytes);
  return await readGgufHeader(path);
}

describe("readGgufHeader", () => {
  test("reads a model's and an adapter's header", async () => {
    expect(await headerOf(tinyModel())).toEqual({
      fileBytes: 472_448,
      parameters: 116_544,
      architecture: "llama",
      type: undefined,
    });
    expect(await headerOf(tinyLora())).toMatchObject({ architecture: "llama", type: "adapter" });
  });

  test.each([
    ["an empty file", Buffer.alloc(0), "is not a GGUF file"],
    ["text", Buffer.from("hello world, this is text"), "is not a GGUF file"],
    ["half a header", tinyModel().subarray(0, 300), "is cut short"],
    ["a body cut short", tinyModel().subarray(0, -100), "is cut short"],
    ["another version", patched(4, 99), "has GGUF version 99"],
    ["a huge tensor count", patched(11, 0x7f), "is damaged"],
    ["a huge key count", patched(19, 0x7f), "is damaged"],
    ["a huge first key", patched(29, 0x7f), "is damaged"],
  ])("%s is told apart", async (_, bytes, message) => {
    await expect(headerOf(bytes)).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringContaining(message),
    });
  });

  test("a missing file and a folder are told apart", async () => {
    await using folder = await temporaryFolder();
    await expect(readGgufHeader(join(folder.path, "gone.gguf"))).rejects.toThrow("there is no such file");
    await expect(readGgufHeader(folder.path)).rejects.toThrow("is not a file");
  });

  test("no flipped byte of the header leads to anything but an answer or a clear error", async () => {
    await using folder = await temporaryFolder();
    const path = join(folder.path, "file.gguf");
    const original = tinyModel();
    const outcomes: unknown[] = [];
    for (let at = 0; at < 9000; at += 29) {
      const bytes = Buffer.from(original);
      bytes[at] = (bytes[at] ?? 0) ^ 0xff;
      await writeFile(path, bytes);
      outcomes.push(await readGgufHeader(path).catch((thrown: unknown) => thrown));
    }
    const refused = outcomes.filter((outcome) => outcome instanceof PenstockError);
    expect(refused.length).toBeGreaterThan(25);
    expect(outcomes.filter((outcome) => outcome instanceof Error && !(outcome instanceof PenstockError))).toEqual([]);
  });
});

function patched(at: number, byte: number): Buffer {
  const bytes = tinyModel();
  bytes[at] = byte;
  return bytes;
}
