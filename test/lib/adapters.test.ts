import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { checkAdapter } from "../../runtime/lib/adapters/check.ts";
import { PenstockError } from "../../runtime/contracts/errors.ts";
import { text, writeGguf, type GgufMetadata } from "../../runtime/demo/gguf.ts";
import { tinyEncoder, tinyLora, tinyModel } from "../embedded/tiny-gguf.ts";
import { temporaryFolder, type TemporaryFolder } from "../support/folders.ts";
import { gguf } from "../support/gguf-bytes.ts";
import { safetensors, safetensorsParts, type TestTensor } from "../support/safetensors-bytes.ts";

let folder: TemporaryFolder;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(async () => {
  await folder[Symbol.asyncDispose]();
});

/** What was thrown: an `adapter_invalid` whose message has no path of this node. */
async function refusalOf(checked: Promise<unknown>): Promise<string> {
  const thrown: unknown = await checked.catch((error: unknown) => error);
  expect(thrown).toBeInstanceOf(PenstockError);
  const { code, message } = thrown as PenstockError; // the line above
  expect(code, message).toBe("adapter_invalid");
  expect(message).not.toContain(folder.path);
  return message;
}

describe("an adapter in PEFT's format", () => {
  // Llama 3 8B, but with 4 layers.
  const base = {
    model_type: "llama",
    hidden_size: 4096,
    intermediate_size: 14336,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    num_hidden_layers: 4,
    vocab_size: 128256,
  };
  const config = {
    peft_type: "LORA",
    r: 8,
    lora_alpha: 16,
    target_modules: ["q_proj", "v_proj"],
    rank_pattern: {},
    bias: "none",
    init_lora_weights: true,
    use_dora: false,
    modules_to_save: null,
    base_model_name_or_path: "meta-llama/Meta-Llama-3-8B",
    peft_version: "0.19.1",
    loftq_config: {},
    layer_replication: null,
  };
  const module = (name: string, [inputs, outputs]: readonly [number, number], rank = 8) => ({
    [`base_model.model.${name}.lora_A.weight`]: { shape: [rank, inputs] },
    [`base_model.model.${name}.lora_B.weight`]: { shape: [outputs, rank] },
  });
  const layer = (index: number, part: string) => `model.layers.${index}.${part}`;
  const whole = {
    ...module(layer(0, "self_attn.q_proj"), [4096, 4096]),
    ...module(layer(3, "self_attn.v_proj"), [4096, 1024]),
    ...module(layer(3, "self_attn.o_proj"), [4096, 4096]),
    ...module(layer(1, "mlp.gate_proj"), [4096, 14336]),
    ...module(layer(1, "mlp.down_proj"), [14336, 4096]),
  };

  interface Change {
    readonly config?: unknown;
    readonly tensors?: Readonly<Record<string, TestTensor>>;
    readonly base?: unknown;
    readonly maxRank?: number | null;
  }

  const adapterPath = () => join(folder.path, "adapter");
  const modelPath = () => join(folder.path, "model");
  const check = (maxRank: number | null = 16) =>
    checkAdapter({ adapterPath: adapterPath(), modelPath: modelPath(), format: "safetensors", maxRank });

  async function write(change: Change = {}) {
    for (const path of [adapterPath(), modelPath()]) await mkdir(path, { recursive: true });
    await writeFile(join(adapterPath(), "adapter_config.json"), JSON.stringify(change.config ?? config));
    await writeFile(join(adapterPath(), "adapter_model.safetensors"), safetensors(change.tensors ?? whole));
    await writeFile(join(modelPath(), "config.json"), JSON.stringify(change.base ?? base));
  }

  async function checkWith(change: Change) {
    await write(change);
    return check(change.maxRank);
  }

  it("says its rank and its model", async () => {
    expect(await checkWith({})).toEqual({ rank: 8, baseModel: "meta-llama/Meta-Llama-3-8B" });
    expect(await checkWith({ maxRank: 8 })).toMatchObject({ rank: 8 });
    expect(await checkWith({ maxRank: null })).toMatchObject({ rank: 8 });
  });

  it.each<[string, Change]>([
    ["target modules as an expression", { config: { ...config, target_modules: ".*(q|v)_proj" } }],
    ["no target modules", { config: { ...config, target_modules: null } }],
    ["fields set to null", { config: { ...config, rank_pattern: null, base_model_name_or_path: null } }],
    ["a way to begin that leaves the model alone", { config: { ...config, init_lora_weights: "gaussian" } }],
    [
      "names without PEFT's prefix",
      {
        tensors: {
          "layers.0.mlp.up_proj.lora_A.weight": { shape: [8, 4096] },
          "layers.0.mlp.up_proj.lora_B.weight": { shape: [14336, 8] },
        },
      },
    ],
    [
      "embeddings",
      {
        tensors: {
          "base_model.model.model.embed_tokens.lora_embedding_A": { shape: [8, 100] },
          "base_model.model.model.embed_tokens.lora_embedding_B": { shape: [4096, 8] },
          "base_model.model.model.embed_tokens.base_layer.weight": { shape: [100, 40] },
        },
      },
    ],
    [
      "experts, whose sizes config.json names otherwise",
      { tensors: module(layer(0, "mlp.experts.7.down_proj"), [768, 4096]) },
    ],
    ["all experts in one", { tensors: module(layer(0, "mlp.experts"), [768, 64], 64) }],
    [
      "the tower of a model that sees",
      { tensors: module("vision_tower.encoder.layers.26.self_attn.q_proj", [1152, 1152]) },
    ],
    ["a model that sees", { base: { text_config: base, hidden_size: 7 } }],
    [
      "sizes per layer",
      {
        base: { ...base, intermediate_size: [8192, 14336], num_key_value_heads: [1, 2] },
        tensors: module(layer(0, "mlp.down_proj"), [8192, 4096]),
      },
    ],
    [
      "heads of their own size",
      { base: { ...base, head_dim: 64 }, tensors: module(layer(0, "self_attn.o_proj"), [2048, 4096]) },
    ],
    [
      "heads that differ",
      { base: { ...base, kv_lora_rank: 512 }, tensors: module(layer(0, "self_attn.o_proj"), [2048, 4096]) },
    ],
    ["a model that says nothing", { base: {} }],
  ])("takes %s", async (_, change) => {
    expect(await checkWith(change)).toMatchObject({ rank: 8 });
  });

  it("takes ranks that differ between modules, and answers the largest", async () => {
    const tensors = { ...whole, ...module(layer(2, "self_attn.k_proj"), [4096, 1024], 12) };
    expect(await checkWith({ config: { ...config, rank_pattern: { k_proj: 12 } }, tensors })).toMatchObject({
      rank: 12,
    });
    expect(await refusalOf(checkWith({ tensors }))).toMatch(/k_proj has rank 12 .* says 8: save the adapter again/);
  });

  it.each<[string, Change, RegExp]>([
    ["a rank above the limit", { maxRank: 4 }, /has rank 8.*up to rank 4: raise lora.maxRank to at least 8/],
    ["a rank pattern above the limit", { config: { ...config, rank_pattern: { "(a+)+$": 64 } } }, /has rank 64/],
    ["another method", { config: { ...config, peft_type: "IA3" } }, /type IA3, and only LORA.*Merge/],
    ["no method", { config: { model_type: "llama" } }, /adapter_config.json is wrong at peft_type/],
    ["no rank", { config: { ...config, r: undefined } }, /no valid r: save/],
    ["rank 0", { config: { ...config, r: 0 } }, /no valid r: save/],
    ["no alpha", { config: { ...config, lora_alpha: undefined } }, /no valid lora_alpha/],
    ["a list", { config: [] }, /adapter_config.json is wrong/],
    ["DoRA", { config: { ...config, use_dora: true } }, /uses DoRA.*Merge/],
    ["biases", { config: { ...config, bias: "lora_only" } }, /trained biases \(bias: lora_only\)/],
    ["biases in the LoRA", { config: { ...config, lora_bias: true } }, /lora_bias/],
    ["activated LoRA", { config: { ...config, alora_invocation_tokens: [1] } }, /activated LoRA/],
    ["repeated layers", { config: { ...config, layer_replication: [[0, 4]] } }, /layers that are repeated/],
    ["whole modules", { config: { ...config, modules_to_save: ["lm_head"] } }, /modules_to_save: lm_head.*Merge/],
    ["PiSSA", { config: { ...config, init_lora_weights: "pissa_niter_16" } }, /pissa_niter_16.*Merge/],
    ["no tensors", { tensors: {} }, /has no tensors/],
    ["a full model", { tensors: { "model.embed_tokens.weight": { shape: [2, 2] } } }, /those of a full model: name it/],
    [
      "a tensor of something else",
      { tensors: { ...whole, "base_model.model.score.weight": { shape: [2, 2] } } },
      /score.weight, which is no tensor of a LoRA/,
    ],
    ["half a pair", { tensors: { "base_model.model.x.lora_A.weight": { shape: [8, 2] } } }, /only one of the two/],
    [
      "weights that are whole numbers",
      { tensors: { "base_model.model.x.lora_A.weight": { shape: [8, 2], dtype: "I8" } } },
      /is I8/,
    ],
    ["convolutions", { tensors: { "base_model.model.x.lora_A.weight": { shape: [8, 2, 1, 1] } } }, /no matrix/],
    [
      "halves of different ranks",
      { tensors: { ...module("x", [2, 2]), "base_model.model.x.lora_B.weight": { shape: [2, 4] } } },
      /has rank 8 and 4/,
    ],
    [
      "a larger model",
      { tensors: module(layer(0, "self_attn.q_proj"), [8192, 8192]) },
      /trained on a model with hidden size 8192; this model has 4096/,
    ],
    [
      "a model with as many inputs but more key-value heads",
      { tensors: module(layer(0, "self_attn.v_proj"), [4096, 4096]) },
      /key-value size 4096; this model has 1024/,
    ],
    ["another MLP", { tensors: module(layer(0, "mlp.down_proj"), [11008, 4096]) }, /intermediate size 11008.*14336/],
    ["other heads", { tensors: module(layer(0, "self_attn.o_proj"), [5120, 4096]) }, /attention size 5120.*4096/],
    [
      "a deeper model",
      { tensors: module(layer(31, "mlp.up_proj"), [4096, 14336]) },
      /layer 31; this model has 4 layers/,
    ],
    ["a model that sees", { base: { text_config: { ...base, hidden_size: 2048 } } }, /hidden size 4096.*2048/],
  ])("refuses %s", async (_, change, words) => {
    expect(await refusalOf(checkWith(change))).toMatch(words);
  });

  it("refuses what is not there, or broken, and says what an adapter is", async () => {
    const remedy = /An adapter for this model is a folder with adapter_config.json and adapter_model.safetensors/;
    expect(await refusalOf(check())).toMatch(remedy);
    await write();
    await rename(join(adapterPath(), "adapter_model.safetensors"), join(adapterPath(), "adapter_model.bin"));
    const message = await refusalOf(check());
    expect(message).toMatch(/^Cannot read adapter_model.safetensors: there is no such file/);
    expect(message).toMatch(remedy);
    await writeFile(join(adapterPath(), "adapter_model.safetensors"), safetensors(whole).subarray(0, -1));
    expect(await refusalOf(check())).toMatch(/cut short/);
    await writeFile(join(adapterPath(), "adapter_config.json"), "{");
    expect(await refusalOf(check())).toMatch(/adapter_config.json is not JSON/);
    await writeFile(join(adapterPath(), "adapter_config.json"), Buffer.alloc(2 ** 20 + 1, " "));
    expect(await refusalOf(check())).toMatch(/more than the limit/);
    await rm(adapterPath(), { recursive: true });
    await writeFile(adapterPath(), tinyLora());
    expect(await refusalOf(check())).toMatch(/cannot be opened \(ENOTDIR\)/);
  });

  it("does not blame the adapter for its model", async () => {
    await write();
    await rm(join(modelPath(), "config.json"));
    await expect(check()).rejects.toMatchObject({
      code: "model_file_invalid",
      message: expect.stringMatching(/^Cannot read config.json/),
    });
  });

  it("answers any change of any file with a result or a clear error", async () => {
    await write();
    const files = {
      "adapter/adapter_config.json": Buffer.from(JSON.stringify(config)),
      "adapter/adapter_model.safetensors": safetensors(module(layer(0, "self_attn.q_proj"), [16, 16])).subarray(0, 400),
      "model/config.json": Buffer.from(JSON.stringify(base)),
    };
    const change = fc.record({
      file: fc.constantFrom(...(Object.keys(files) as (keyof typeof files)[])), // the keys of a constant table
      at: fc.nat(10_000),
      value: fc.nat(255),
    });
    const outcomes: unknown[] = [];
    await fc.assert(
      fc.asyncProperty(change, async ({ file, at, value }) => {
        const bytes = Buffer.from(files[file]);
        bytes[at % bytes.length] = value;
        await writeFile(join(folder.path, file), bytes);
        outcomes.push(await check().catch((thrown: unknown) => thrown));
        await writeFile(join(folder.path, file), files[file]);
      }),
      { numRuns: 300 },
    );
    expect(outcomes.filter((outcome) => outcome instanceof PenstockError).length).toBeGreaterThan(50);
    expect(outcomes.filter((outcome) => outcome instanceof Error && !(outcome instanceof PenstockError))).toEqual([]);
  });

  it("reads a header of 50 000 tensors", async () => {
    await write();
    const line = (index: number) =>
      `"base_model.model.model.layers.${index}.mlp.up_proj.lora_A.weight":{"dtype":"F16","shape":[8,0],"data_offsets":[0,0]}`;
    const header = `{${Array.from({ length: 50_000 }, (_, index) => line(index)).join(",")}}`;
    await writeFile(join(adapterPath(), "adapter_model.safetensors"), safetensorsParts(header));
    expect(await refusalOf(check())).toMatch(/only one of the two/);
  });
});

describe("an adapter in GGUF format", () => {
  const adapterPath = () => join(folder.path, "a.gguf");
  const modelPath = () => join(folder.path, "m.gguf");

  const tiny = tinyModel();

  async function check(
    adapter: Buffer,
    { model = tiny, maxRank = 16 }: { model?: Buffer; maxRank?: number | null } = {},
  ) {
    await writeFile(adapterPath(), adapter);
    await writeFile(modelPath(), model);
    return checkAdapter({ adapterPath: adapterPath(), modelPath: modelPath(), format: "gguf", maxRank });
  }

  const metadata: GgufMetadata = {
    "general.type": { type: "string", value: "adapter" },
    "general.architecture": { type: "string", value: "llama" },
    "adapter.type": { type: "string", value: "lora" },
    "general.base_model.0.name": { type: "string", value: "Tiny" },
  };
  /** An adapter of zeros; sizes with the fastest first, as in the file. */
  const lora = (tensors: Readonly<Record<string, readonly number[]>>, changes: GgufMetadata = {}) =>
    writeGguf(
      { ...metadata, ...changes },
      Object.entries(tensors).map(([name, shape]) => ({
        name,
        shape,
        encoding: "F32",
        data: new Float32Array(shape.reduce((product, size) => product * size, 1)),
      })),
    );
  const pair = (target: string, a: readonly number[], b: readonly number[]) => ({
    [`${target}.lora_a`]: a,
    [`${target}.lora_b`]: b,
  });
  const query = pair("blk.0.attn_q.weight", [64, 4], [4, 64]);

  it("says its rank and its model", async () => {
    expect(await check(tinyLora(), { maxRank: 4 })).toEqual({ rank: 4, baseModel: null });
    const tensors = { ...query, ...pair("blk.1.ffn_down.weight", [128, 9], [9, 64]), "blk.0.attn_norm.weight": [64] };
    expect(await check(lora(tensors))).toEqual({ rank: 9, baseModel: "Tiny" });
    expect(await check(lora(query), { maxRank: null })).toMatchObject({ rank: 4 });
  });

  it("knows that embeddings have A and B in each other's place", async () => {
    expect(await check(lora(pair("token_embd.weight", [4, 268], [4, 64])))).toMatchObject({ rank: 4 });
    expect(await refusalOf(check(lora(pair("token_embd.weight", [64, 4], [4, 268]))))).toMatch(
      /268 x 4; here it is 64/,
    );
  });

  const asModel = { "general.type": { type: "string", value: "model" } } as const;
  const qwen = { "general.architecture": { type: "string", value: "qwen3" } } as const;
  const vector = { "adapter.type": { type: "string", value: "control" } } as const;

  const wholeNumbers = gguf({
    pairs: [
      ["general.type", 8, text("adapter")],
      ["general.architecture", 8, text("llama")],
      ["adapter.type", 8, text("lora")],
    ],
    tensors: [{ name: "blk.0.attn_q.weight.lora_a", dimensions: [64, 4], type: 26, offset: 0 }],
    data: Buffer.alloc(1024),
  });

  it.each<[string, Buffer, RegExp]>([
    ["a full model", tinyModel(), /full model, not an adapter: name it as a model's source/],
    ["a model by its type", lora(query, asModel), /full model/],
    ["another type", lora(query, vector), /type control/],
    ["another architecture", lora(query, qwen), /architecture qwen3, and this model is llama/],
    ["no tensors", lora({}), /no tensors/],
    ["other tensors", lora({ "blk.0.attn_q.weight": [64, 64] }), /no tensor of a LoRA/],
    ["half a pair", lora({ "blk.0.attn_q.weight.lora_a": [64, 4] }), /only one of the two tensors/],
    ["a deeper model", lora(pair("blk.9.attn_q.weight", [64, 4], [4, 64])), /blk.9.attn_q.weight, which this model/],
    ["a wider model", lora(pair("blk.0.attn_q.weight", [96, 4], [4, 64])), /is 96 x 64; here it is 64 x 64/],
    ["a model of more outputs", lora(pair("blk.0.attn_v.weight", [64, 4], [4, 96])), /is 64 x 96; here/],
    ["halves of different ranks", lora(pair("blk.0.attn_q.weight", [64, 4], [5, 64])), /ranks 4 and 5/],
    ["embeddings of different ranks", lora(pair("token_embd.weight", [4, 268], [5, 64])), /ranks 4 and 5/],
    ["numbers that cannot be multiplied", wholeNumbers, /lora_a is of ggml type 26: convert it again/],
    ["experts", lora(pair("blk.0.attn_q.weight", [64, 4, 8], [4, 64, 8])), /8 experts.*this model has 1/],
    ["another file", Buffer.from("<html>"), /a.gguf is not a whole GGUF file/],
    ["a file that was cut", tinyLora().subarray(0, -1), /cut short/],
  ])("refuses %s", async (_, adapter, words) => {
    expect(await refusalOf(check(adapter))).toMatch(words);
  });

  it("refuses too high a rank, an encoder's model, and a file that is not there", async () => {
    expect(await refusalOf(check(tinyLora(), { maxRank: 2 }))).toMatch(/rank 4.*up to rank 2: raise lora.maxRank/);
    expect(await refusalOf(check(tinyLora(), { model: tinyEncoder() }))).toMatch(/llama, and this model is bert/);
    await rm(adapterPath());
    const files = { adapterPath: adapterPath(), modelPath: modelPath(), maxRank: 16 };
    expect(await refusalOf(checkAdapter({ ...files, format: "gguf" }))).toMatch(
      /^Cannot read a.gguf: there is no such/,
    );
  });

  it("looks into every shard of a split model", async () => {
    const shard = (tensors: Readonly<Record<string, readonly number[]>>) => lora(tensors, asModel);
    const modelShard = (part: number) => join(folder.path, `m-0000${part}-of-00002.gguf`);
    await writeFile(modelShard(1), shard({ "blk.0.attn_q.weight": [64, 64] }));
    await writeFile(modelShard(2), shard({ "blk.1.attn_q.weight": [64, 64] }));
    await writeFile(adapterPath(), lora({ ...query, ...pair("blk.1.attn_q.weight", [64, 4], [4, 64]) }));
    const files = { adapterPath: adapterPath(), modelPath: modelShard(1), format: "gguf", maxRank: 16 } as const;
    expect(await checkAdapter(files)).toMatchObject({ rank: 4 });
    await rm(modelShard(2));
    await expect(checkAdapter(files)).rejects.toMatchObject({ code: "model_file_invalid" });
  });

  it("answers any change of a header with a result or a clear error", async () => {
    const original = tinyLora();
    const outcomes: unknown[] = [];
    await fc.assert(
      fc.asyncProperty(fc.nat(800), fc.nat(255), async (at, value) => {
        const bytes = Buffer.from(original);
        bytes[at] = value;
        outcomes.push(await check(bytes).catch((thrown: unknown) => thrown));
      }),
      { numRuns: 200 },
    );
    expect(outcomes.filter((outcome) => outcome instanceof PenstockError).length).toBeGreaterThan(50);
    expect(outcomes.filter((outcome) => outcome instanceof Error && !(outcome instanceof PenstockError))).toEqual([]);
  });
});
