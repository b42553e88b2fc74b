import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { z } from "zod";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { readSafetensorsHeader } from "../../runtime/lib/safetensors/header.ts";
import { readModelJson } from "../../runtime/lib/safetensors/json-file.ts";
import { readSafetensorsModel } from "../../runtime/lib/safetensors/model.ts";
import { temporaryFolder } from "../support/folders.ts";
import { safetensors, safetensorsParts } from "../support/safetensors-bytes.ts";

let directory = "";
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "penstock-safetensors-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

async function check(bytes: Buffer) {
  const path = join(directory, "m.safetensors");
  await writeFile(path, bytes);
  return readSafetensorsHeader(path, "m.safetensors");
}

/** One tensor's line of a header. */
const tensor = (start: number, end: number, { dtype = "F16", shape = [(end - start) / 2] } = {}) =>
  JSON.stringify({ dtype, shape, data_offsets: [start, end] });

const small = safetensors({ a: { shape: [2, 3] }, b: { shape: [4], dtype: "F32" }, none: { shape: [0, 8] } });

describe("readSafetensorsHeader", () => {
  it("reads names, types and shapes", async () => {
    const header = await check(small);
    expect(header).toMatchObject({ parameters: 10, fileBytes: small.length });
    expect([...header.tensors].map(([name, { dtype, shape }]) => [name, dtype, shape])).toEqual([
      ["a", "F16", [2, 3]],
      ["b", "F32", [4]],
      ["none", "F16", [0, 8]],
    ]);
  });

  it("takes tensors in any order, names with every character, and no padding", async () => {
    const name = JSON.stringify('a"b\\:{}\u00fc');
    const header = `{"b":${tensor(4, 8)},${name}:${tensor(0, 4)},"__proto__":${tensor(8, 12)}}`;
    const { tensors } = await check(safetensorsParts(header, Buffer.alloc(12)));
    expect([...tensors.keys()]).toEqual(['a"b\\:{}\u00fc', "b", "__proto__"]);
  });

  it("finds every single cut, wherever it is", async () => {
    for (let length = 0; length < small.length; length += 1) {
      await expect(check(small.subarray(0, length)), `cut to ${length} bytes`).rejects.toMatchObject({
        code: "model_file_invalid",
      });
    }
  });

  it.each<[string, Buffer, RegExp]>([
    ["an empty file", Buffer.alloc(0), /ends inside its header/],
    ["another file", Buffer.from("<html>not found</html>"), /longer than the limit/],
    ["a header longer than memory", Buffer.concat([Buffer.alloc(8, 0xff), small]), /longer than the limit/],
    ["a header longer than the file", Buffer.from([0, 0, 0, 1, 0, 0, 0, 0]), /ends inside its header/],
    ["an array", safetensorsParts("[]"), /does not begin with {/],
    ["no header", safetensorsParts(""), /does not begin with {/],
    ["broken JSON", safetensorsParts('{"a":'), /not JSON/],
    ["broken UTF-8", safetensorsParts(Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x7d])), /not UTF-8/],
    ["deep JSON", safetensorsParts(`{"a":${"[".repeat(1e6)}`), /nests/],
    ["more names than memory", safetensorsParts(`{"a":{${'"":0,'.repeat(3e6)}"":0}}`), /more than the limit/],
    ["arrays of arrays", safetensorsParts('{"a":{"dtype":"F16","shape":[[1]],"data_offsets":[0,2]}}'), /nests/],
    ["an array for a tensor", safetensorsParts('{"a":[1]}'), /nests/],
    ["an object in a tensor", safetensorsParts('{"a":{"dtype":{"F16":1},"shape":[],"data_offsets":[0,2]}}'), /nests/],
    ["a list in metadata", safetensorsParts('{"__metadata__":{"a":["b"]}}'), /not a table of texts/],
    ["a number as tensor", safetensorsParts('{"a":1}'), /"a" is not {dtype/],
    ["a field that is missing", safetensorsParts('{"a":{"dtype":"F16","shape":[]}}'), /no valid data_offsets/],
    ["an unknown type", safetensorsParts(`{"a":${tensor(0, 2, { dtype: "F12" })}}`, Buffer.alloc(2)), /no valid dtype/],
    ["a type of Object", safetensorsParts(`{"a":${tensor(0, 2, { dtype: "toString" })}}`), /no valid dtype/],
    ["a shape below zero", safetensorsParts(`{"a":${tensor(0, 2, { shape: [-1] })}}`), /no valid shape/],
    ["a shape of text", safetensorsParts('{"a":{"dtype":"F16","shape":"8","data_offsets":[0,2]}}'), /no valid shape/],
    ["offsets below zero", safetensorsParts(`{"a":${tensor(-2, 0, { shape: [1] })}}`), /no valid data_offsets/],
    ["offsets backwards", safetensorsParts(`{"a":${tensor(4, 0, { shape: [2] })}}`), /begins at byte 4/],
    ["metadata of numbers", safetensorsParts('{"__metadata__":{"a":1}}'), /not a table of texts/],
    ["a null byte in a name", safetensorsParts(`{"a\\u0000b":${tensor(0, 2)}}`, Buffer.alloc(2)), /null byte/],
    ["a tensor past the end", safetensorsParts(`{"a":${tensor(0, 2 ** 40)}}`, Buffer.alloc(2)), /cut short/],
    ["bytes after the end", Buffer.concat([small, Buffer.alloc(3)]), /3 bytes after its last tensor/],
    ["a hole", safetensorsParts(`{"a":${tensor(2, 4)}}`, Buffer.alloc(4)), /overlap or leave a hole/],
    [
      "tensors that overlap",
      safetensorsParts(`{"a":${tensor(0, 4)},"b":${tensor(2, 6)}}`, Buffer.alloc(6)),
      /"b" begins at byte 2, not 4/,
    ],
    [
      "a length that its shape denies",
      safetensorsParts(`{"a":${tensor(0, 4, { shape: [3] })}}`, Buffer.alloc(4)),
      /\[3\]/,
    ],
    [
      "half a byte",
      safetensorsParts(`{"a":${tensor(0, 1, { dtype: "F4", shape: [1] })}}`, Buffer.alloc(1)),
      /cannot have/,
    ],
    [
      "a tensor larger than numbers go",
      safetensorsParts(`{"a":${tensor(0, 2, { shape: [2 ** 50, 2 ** 50] })}}`, Buffer.alloc(2)),
      /impossibly large/,
    ],
    [
      "one name for two tensors",
      safetensorsParts(`{"a":${tensor(0, 4)},"a":${tensor(0, 4, { shape: [1, 2] })}}`, Buffer.alloc(4)),
      /name twice/,
    ],
    [
      "one name for two tensors, written otherwise",
      safetensorsParts(`{"a":${tensor(0, 4)},"\\u0061":${tensor(0, 4)}}`, Buffer.alloc(4)),
      /name twice/,
    ],
    [
      "two shapes of one tensor",
      safetensorsParts('{"a":{"dtype":"F16","shape":[2],"shape":[1,2],"data_offsets":[0,4]}}', Buffer.alloc(4)),
      /name twice/,
    ],
  ])("refuses %s", async (_, bytes, words) => {
    await expect(check(bytes)).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringMatching(words),
    });
  });

  it("answers any change of a header's bytes with a header or a clear error", async () => {
    const change = fc.record({ at: fc.nat(small.length - 1), value: fc.nat(255) });
    const outcomes: unknown[] = [];
    await fc.assert(
      fc.asyncProperty(fc.array(change, { minLength: 1, maxLength: 8 }), async (changes) => {
        const bytes = Buffer.from(small);
        for (const { at, value } of changes) bytes[at] = value;
        outcomes.push(await check(bytes).catch((thrown: unknown) => thrown));
      }),
      { numRuns: 500 },
    );
    expect(outcomes.filter((outcome) => outcome instanceof PenstockError).length).toBeGreaterThan(100);
    expect(outcomes.filter((outcome) => outcome instanceof Error && !(outcome instanceof PenstockError))).toEqual([]);
  });

  it("says nothing of the folder, and tells a missing file and a folder apart", async () => {
    const gone = readSafetensorsHeader(join(directory, "gone"), "gone.safetensors");
    await expect(gone).rejects.toThrow("Cannot read gone.safetensors: there is no such file; check the path.");
    await expect(readSafetensorsHeader(directory, "m")).rejects.toThrow("m is not a file; check the path.");
  });
});

describe("readSafetensorsModel", () => {
  const shard = (part: number, of = 2) => `model-0000${part}-of-0000${of}.safetensors`;
  const index = (files: Readonly<Record<string, string>>) => JSON.stringify({ metadata: {}, weight_map: files });
  const indexName = "model.safetensors.index.json";

  async function checkModel(files: Readonly<Record<string, string | Buffer>>) {
    await using folder = await temporaryFolder();
    for (const [name, bytes] of Object.entries(files)) await writeFile(join(folder.path, name), bytes);
    return await readSafetensorsModel(folder.path);
  }

  it("reads every file of a model", async () => {
    const two = { [shard(2)]: small, [shard(1)]: small, "config.json": "{}" };
    const whole = { files: [shard(1), shard(2)], parameters: 20 };
    expect(await checkModel(two)).toEqual(whole);
    expect(await checkModel({ ...two, [indexName]: index({ a: shard(1), b: shard(2) }) })).toEqual(whole);
    expect(await checkModel({ "model.safetensors": small })).toMatchObject({ parameters: 10 });
  });

  it.each<[string, Readonly<Record<string, string | Buffer>>, RegExp]>([
    ["a folder without weights", { "config.json": "{}" }, /has no .safetensors file/],
    ["a shard that is missing", { [shard(1)]: small }, /lacks its file model-00002-of-00002.safetensors/],
    ["a shard that is cut", { [shard(1)]: small, [shard(2)]: small.subarray(0, -1) }, /^model-00002.*cut short/],
    [
      "a file that the index names",
      { "x.safetensors": small, [indexName]: index({ a: "y.safetensors" }) },
      /lacks.* y/,
    ],
    ["a file elsewhere", { "x.safetensors": small, [indexName]: index({ a: "../x.safetensors" }) }, /lacks/],
    ["a broken index", { "x.safetensors": small, [indexName]: "{" }, /index.json is not JSON/],
    ["an index of something else", { "x.safetensors": small, [indexName]: "[]" }, /index.json is wrong/],
  ])("refuses %s", async (_, files, words) => {
    await expect(checkModel(files)).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringMatching(words),
    });
  });
});

describe("readModelJson", () => {
  it("takes the numbers that Python writes, and leaves texts alone", async () => {
    const path = join(directory, "config.json");
    const written = '{"limit":[0.0, Infinity],"low": -Infinity,"x":NaN,"text":"NaN Infinity"}';
    await writeFile(path, written);
    const read = await readModelJson(path, { schema: z.unknown(), name: "config.json", maxBytes: 1000 });
    expect(read).toEqual({ limit: [0, null], low: null, x: null, text: "NaN Infinity" });
  });
});
